"""Thin adapters to other packages, each an extra that is loaded when it is used."""
