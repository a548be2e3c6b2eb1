"""What vectors can predict: labels to be predicted, made from the measurements of a collection."""
