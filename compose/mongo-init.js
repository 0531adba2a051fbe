// Runs once, when the data directory is new: creates Bucket's user, which may read and write only its own database.
db.getSiblingDB("bucket").createUser({
  user: "bucket",
  pwd: process.env.MONGODB_PASSWORD,
  roles: [{ role: "readWrite", db: "bucket" }],
});
