"""Floor 4: the commands. The only place that puts objects together."""
