"""Helpers around tasks, actors and objects, under the names that Ray gives them."""
