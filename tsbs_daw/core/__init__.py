"""What every part needs: errors, settings, durable files, safe names, the machine."""
