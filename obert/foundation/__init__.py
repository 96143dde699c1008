"""The ground floor: errors, files, locks, processes, the registry. Imports no other room."""
