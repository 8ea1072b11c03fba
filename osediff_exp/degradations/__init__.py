"""Degradations: how a low-quality picture is made from a high-quality one."""
