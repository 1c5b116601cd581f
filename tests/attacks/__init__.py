"""Attacks on a real service: what each costs a victim who calls it meanwhile, and in memory."""
