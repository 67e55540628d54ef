-- How long a tenant's finished runs are kept.
select retention from tenant where id = $1
