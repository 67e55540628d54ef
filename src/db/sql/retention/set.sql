-- How long a tenant's finished runs are kept from now on.
update tenant set retention = $2 where name = $1 returning id
