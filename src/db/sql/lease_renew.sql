-- Prolongs the lease of a node, if nobody has taken over.
update node set expires_at = clock_timestamp() + make_interval(secs => $2) where id = $1
