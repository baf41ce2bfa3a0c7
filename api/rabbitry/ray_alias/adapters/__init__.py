"""Adapters: modules that stand for parts of Ray which are written in C++ or speak to its head node.

Each gives the names that Ray's own Python asks of the module it stands for, by what rabbitry's core has; `table.py`
beside this package says which is which. Nothing else imports them.
"""
