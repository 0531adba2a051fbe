// Runs once, when the data directory is new: Bucket's own user, who may read and write its database and no other.
db.getSiblingDB("bucket").createUser({
  user: "bucket",
  pwd: process.env.MONGODB_PASSWORD,
  roles: [{ role: "readWrite", db: "bucket" }],
});
