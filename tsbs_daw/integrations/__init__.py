"""Installers of the scripts for DAWs."""
