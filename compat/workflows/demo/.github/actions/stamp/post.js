// The action's post step: runs when the job is over and still finds what the main step left.
const fs = require("fs");

console.log(`demo: post step, ${process.env.STATE_word}, the file ${fs.existsSync("stamp.txt") ? "is there" : "is gone"}`);
