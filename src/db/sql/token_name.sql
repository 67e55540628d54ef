-- What a token is called.
select name from token where tenant = $1 and id = $2
