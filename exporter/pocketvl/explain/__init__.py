"""Why a variant takes as long as it does: operators against the machine's peaks, and rules that name faults."""
