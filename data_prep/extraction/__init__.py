"""HTML to main text: a linear scanner, block features, a small trained classifier, and the layout of what stays."""
