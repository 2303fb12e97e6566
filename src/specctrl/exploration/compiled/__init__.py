"""Explorations by kernels: what each step does to every state, made from the rule code, compiled and searched."""
