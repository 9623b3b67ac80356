"""DeepSpeed's engine behind the protocol: ZeRO 0 to 3, and optimizer state or parameters offloaded to the CPU."""
