"""The study: data sets, architectures, protocol, statistics, report."""
