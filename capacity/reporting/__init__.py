"""Reports: content, drawings, and how both are set as a page or as a document."""
