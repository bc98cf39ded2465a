"""Basics that all other packages use: errors, settings, durable files, safe names, locks, child processes."""
