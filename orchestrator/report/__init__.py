"""One run told whole: blocks made of the ledger's row, written as HTML or as Markdown."""
