"""Published reference ranges, one YAML file each."""
