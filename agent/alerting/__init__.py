"""Alerts: raised as events, told once, and sent where a person looks."""
