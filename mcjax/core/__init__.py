"""What every room uses: trees, keys, errors, devices, processes; nothing here knows of networks."""
