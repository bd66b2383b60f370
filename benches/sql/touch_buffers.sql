-- Has each page of shared memory been used once, as on a server that has run for a while: until then the kernel finds one at the first
-- use of each, which would charge whoever writes more pages for more than writing them.
CREATE UNLOGGED TABLE pages (filler text);
ALTER TABLE pages ALTER filler SET STORAGE plain;
INSERT INTO pages SELECT repeat('x', 8000) FROM generate_series(1, {pages});
DROP TABLE pages;
