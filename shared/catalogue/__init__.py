"""Catalogue of agents and seed baskets, read from their JSON files only; never imports an agent."""
