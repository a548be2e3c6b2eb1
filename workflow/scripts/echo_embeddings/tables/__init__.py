"""What is known of clips besides their pixels: tables joined to the manifests, selection, export."""
