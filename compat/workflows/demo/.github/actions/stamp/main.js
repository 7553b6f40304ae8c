// The action's main step: writes the file, gives the output, leaves a word for the post step.
const fs = require("fs");

const text = process.env.INPUT_TEXT;
fs.writeFileSync("stamp.txt", `: ${text}\n`);
fs.appendFileSync(process.env.GITHUB_OUTPUT, `length=${text.length}\n`);
fs.appendFileSync(process.env.GITHUB_STATE, "word=stamped\n");
console.log(`demo: writing "${text}"`);
