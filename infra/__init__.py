"""Machines: setting up the one you sit at; creating, preparing and destroying others."""
