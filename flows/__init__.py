"""Prefect flows: which stages run, in which order, and when. The only package that imports Prefect."""
