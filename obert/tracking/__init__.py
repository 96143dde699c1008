"""MLflow as a mirror of the records, and as a source of them. The only room that imports mlflow."""
