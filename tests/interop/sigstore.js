// Checks a checkpoint and one entry's inclusion with @sigstore/verify.
//
//   node sigstore.js MODULES INPUT.json
"use strict";
const path = require("path");
const fs = require("fs");
const crypto = require("crypto");
const [modules, input] = process.argv.slice(2);
const tlog = path.join(modules, "@sigstore", "verify", "dist", "tlog");
const { verifyCheckpoint } = require(path.join(tlog, "checkpoint.js"));
const { verifyMerkleInclusion } = require(path.join(tlog, "merkle.js"));
const given = JSON.parse(fs.readFileSync(input, "utf8"));
const spki = Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), Buffer.from(given.public, "hex")]);
const log = {
  baseURL: given.name,
  logID: Buffer.from(given.id, "hex"),
  publicKey: crypto.createPublicKey({ key: spki, format: "der", type: "spki" }),
  validFor: { start: new Date(0), end: new Date(8.64e15) },
};
const entry = {
  canonicalizedBody: Buffer.from(given.entry, "base64"),
  inclusionProof: {
    logIndex: String(given.index),
    treeSize: String(given.size),
    hashes: given.proof.map((hash) => Buffer.from(hash, "hex")),
    checkpoint: { envelope: given.checkpoint },
  },
};
try {
  verifyMerkleInclusion(entry, verifyCheckpoint(entry, [log]));
  console.log("OK");
} catch (error) {
  console.log(`FAIL: ${error.code}`);
  process.exit(1);
}
