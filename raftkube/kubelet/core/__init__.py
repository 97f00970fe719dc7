"""What a kubelet decides, as functions of what it sees: no clock, process, disk or network here."""
