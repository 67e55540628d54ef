alter table node drop column address, drop column secret, drop column joined, drop column leaving;
