"""Language modelling benchmarks: perplexity of documents, and LAMBADA."""
