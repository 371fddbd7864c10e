"""What long work shares: Apache Beam, progress, threads."""
