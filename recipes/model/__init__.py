"""The plain reference GPT (Llama architecture), its configuration, its initialisation and its Hugging Face form."""
