// A reaper for testcontainers' clients, written for these cases: it speaks the protocol that they speak with the reaper of
// their own project, Ryuk, and shares no code with it.
//
// A client connects to port 8080 and sends lines `label=KEY=VALUE&label=...`; each is answered with `ACK`. When no client is
// connected any more, or none ever came, for as long as the environment says, everything that carries the labels of one
// line is removed, and the reaper ends.

const http = require('http');
const net = require('net');

const SOCKET = '/var/run/docker.sock';
const TRIES = 10;
// The label of this image: a reaper removes itself by ending.
const OWN_LABEL = 'org.testcontainers.ryuk';

const filters = new Set();
let connected = 0;
let timer;

/** A duration in Go's notation, as `1m30s` or `500ms`, in milliseconds. */
function milliseconds(duration) {
  const units = { ms: 1, s: 1000, m: 60000, h: 3600000 };
  const parts = [...duration.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g)];
  if (parts.map((part) => part[0]).join('') !== duration || duration === '') throw new Error(`not a duration: ${duration}`);
  return parts.reduce((sum, [, number, unit]) => sum + number * units[unit], 0);
}

function setting(name, fallback) {
  return milliseconds(process.env[name] || fallback);
}

function api(method, path) {
  return new Promise((resolve, reject) => {
    const request = http.request({ socketPath: SOCKET, method, path }, (answer) => {
      const chunks = [];
      answer.on('data', (chunk) => chunks.push(chunk));
      answer.on('end', () => resolve({ status: answer.statusCode, text: Buffer.concat(chunks).toString() }));
    });
    request.on('error', reject);
    request.end();
  });
}

async function list(path, filter) {
  const separator = path.includes('?') ? '&' : '?';
  const answer = await api('GET', `${path}${separator}filters=${encodeURIComponent(filter)}`);
  if (answer.status !== 200) throw new Error(`GET ${path}: ${answer.status} ${answer.text}`);
  return JSON.parse(answer.text);
}

/** Removes what carries the labels, containers first, since they hold the rest; gives whether nothing is left. */
async function removeAll(filter) {
  const containers = (await list('/containers/json?all=1', filter)).filter(({ Labels }) => Labels[OWN_LABEL] !== 'true');
  let done = await remove('container', containers.map(({ Id }) => `/containers/${Id}?force=1&v=1`));
  done = (await remove('network', (await list('/networks', filter)).map(({ Id }) => `/networks/${Id}`))) && done;
  const volumes = (await list('/volumes', filter)).Volumes || [];
  done = (await remove('volume', volumes.map(({ Name }) => `/volumes/${Name}?force=1`))) && done;
  return (await remove('image', (await list('/images/json', filter)).map(({ Id }) => `/images/${Id}`))) && done;
}

async function remove(kind, paths) {
  let done = true;
  for (const path of paths) {
    const answer = await api('DELETE', path);
    console.log(`removing ${kind} ${path}: ${answer.status}`);
    done = done && (answer.status < 300 || answer.status === 404);
  }
  return done;
}

async function reap() {
  for (const filter of filters) {
    for (let tries = 0; tries < TRIES && !(await removeAll(filter)); tries += 1) {
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
  process.exit(0);
}

/** Ends the wait for a client that was running, and begins the next. */
function expectClient(patience) {
  clearTimeout(timer);
  timer = setTimeout(() => reap().catch((error) => { console.error(error); process.exit(1); }), patience);
}

function serve(client) {
  connected += 1;
  clearTimeout(timer);
  let text = '';
  client.on('data', (chunk) => {
    const lines = (text + chunk).split('\n');
    text = lines.pop();
    for (const line of lines.map((line) => line.trim()).filter(Boolean)) {
      filters.add(JSON.stringify({ label: new URLSearchParams(line).getAll('label') }));
      console.log('to remove:', line);
      client.write('ACK\n');
    }
  });
  // A client that was killed may be seen as an error first; it closes all the same.
  client.on('error', () => {});
  client.on('close', () => {
    connected -= 1;
    if (connected === 0) expectClient(setting('RYUK_RECONNECTION_TIMEOUT', '10s'));
  });
}

expectClient(setting('RYUK_CONNECTION_TIMEOUT', '60s'));
net.createServer(serve).listen(8080, () => console.log('the reaper has Started!'));
// As process 1 it would get no signal at all otherwise.
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => process.exit(0));
