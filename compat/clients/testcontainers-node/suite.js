// Uses testcontainers for Node as tests do, one group per run: suite.js GROUP.
//
// What it prints is compared between daemons. Its reaper is the image in RYUK_CONTAINER_IMAGE.

const fs = require('fs');
const { GenericContainer, Network, Wait, getContainerRuntimeClient, getReaper } = require('testcontainers');
const tar = require('tar-stream');

function show(what, value) {
  console.log(`${what}: ${JSON.stringify(value)}`);
}

async function fails(what, call) {
  await call.then(() => { throw new Error(`${what} did not fail`); }, (error) => show(what, [error.statusCode, error.message]));
}

async function bytes(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks);
}

async function fetched(container, path = '/') {
  return (await fetch(`http://${container.getHost()}:${container.getMappedPort(8080)}${path}`)).text();
}

/** A container that stays; tests end at once what they no longer need. */
function busybox() {
  return new GenericContainer('busybox').withCommand(['sleep', '300']);
}

const atOnce = { timeout: 0 };

async function containers() {
  const web = await new GenericContainer('ringer/web')
    .withExposedPorts(8080).withEnvironment({ A: '1' }).withLabels({ kind: 'node' }).withHostname('web').withUser('root')
    .withUlimits({ nofile: { soft: 100, hard: 200 } }).withAddedCapabilities('SYS_CHROOT').withDroppedCapabilities('MKNOD')
    .withExtraHosts([{ host: 'h', ipAddress: '192.0.2.1' }]).withResourcesQuota({ memory: 0.0625, cpu: 0.5 }).withSharedMemorySize(8388608)
    .withWaitStrategy(Wait.forHttp('/', 8080).forStatusCode(200)).start();
  show('over a published port', await fetched(web));
  show('exec', await web.exec(['sh', '-c', 'echo $A $SERVED; hostname; ulimit -n; grep -c 192.0.2.1 /etc/hosts; exit 3']));
  show('exec with its standard error', await web.exec(['sh', '-c', 'echo err >&2'], { user: 'www-data', workingDir: '/tmp', env: { B: '2' } }));
  show('labels', Object.keys(web.getLabels()).sort());
  const { container, info } = await getContainerRuntimeClient();
  const inspected = await container.inspect(container.getById(web.getId()));
  const { Memory, CpuQuota, CapAdd, CapDrop, ShmSize, Ulimits } = inspected.HostConfig;
  show('host config', { Memory, CpuQuota, CapAdd, CapDrop, ShmSize, Ulimits });
  show('its daemon', [info.containerRuntime.host, info.containerRuntime.remoteSocketPath === process.env.SOCKET]);
  const reaper = await container.inspect(container.getById((await getReaper(await getContainerRuntimeClient())).containerId));
  show('the reaper', [reaper.State.Status, Object.keys(reaper.NetworkSettings.Ports), reaper.Config.Labels['org.testcontainers.ryuk']]);
  await web.restart(atOnce);
  show('after a restart', await fetched(web));
  const image = await web.commit({ repo: 'node-tc-committed', tag: 'one', comment: 'said', author: 'node' });
  show('commit', image.slice(0, 7));
  const stopped = await web.stop({ ...atOnce, remove: false });
  show('stopped', (await container.inspect(container.getById(stopped.getId()))).State.Status);
  await busybox().withName('node-tc-taken').start();
  await fails('a name that is taken', busybox().withName('node-tc-taken').start());
}

async function waits() {
  const lines = [];
  const talker = await new GenericContainer('busybox').withCommand(['sh', '-c', 'echo one; sleep 0.5; echo is ready; sleep 300'])
    .withLogConsumer((stream) => stream.on('data', (line) => lines.push(line.trim())))
    .withWaitStrategy(Wait.forLogMessage(/is ready/)).start();
  while (lines.length < 2) await new Promise((resolve) => setTimeout(resolve, 20));
  show('for a line of the log', lines);
  const logs = await talker.logs({ tail: 1 });
  // The library lets Node end while it waits for this stream.
  const awake = setInterval(() => {}, 1000);
  show('the last line', await new Promise((resolve) => logs.once('data', (line) => resolve(line.toString()))));
  clearInterval(awake);
  const web = await new GenericContainer('ringer/web').withExposedPorts(8080).start();
  show('for its ports', await fetched(web, '/files/note'));
  const well = await new GenericContainer('busybox').withCommand(['sh', '-c', 'sleep 0.5; touch /tmp/well; sleep 300'])
    .withHealthCheck({ test: ['CMD-SHELL', 'test -e /tmp/well'], interval: 200, timeout: 5000, retries: 100 })
    .withWaitStrategy(Wait.forHealthCheck()).start();
  show('for health', (await well.exec(['ls', '/tmp'])).output);
  const shell = await new GenericContainer('busybox').withCommand(['sh', '-c', 'sleep 0.5; touch /tmp/there; sleep 300'])
    .withWaitStrategy(Wait.forAll([Wait.forSuccessfulCommand('test -e /tmp/there')])).start();
  show('for a command', (await shell.exec('ls /tmp')).exitCode);
  await new GenericContainer('busybox').withCommand(['true']).withWaitStrategy(Wait.forOneShotStartup()).start();
  const sick = new GenericContainer('busybox').withCommand(['sleep', '300'])
    .withHealthCheck({ test: ['CMD-SHELL', 'exit 1'], interval: 200, timeout: 5000, retries: 2 }).withWaitStrategy(Wait.forHealthCheck());
  await fails('for one that is sick', sick.start());
  await fails('for one that ends badly', new GenericContainer('busybox').withCommand(['false']).withWaitStrategy(Wait.forOneShotStartup()).start());
}

async function files() {
  fs.mkdirSync('files/folder', { recursive: true });
  fs.writeFileSync('files/note', 'from the host\n');
  fs.writeFileSync('files/folder/deep', 'deep\n');
  const box = await busybox().withTmpFs({ '/scratch': 'size=1m' }).withWorkingDir('/tmp')
    .withBindMounts([{ source: fs.realpathSync('files'), target: '/bound', mode: 'ro' }, { source: 'node-tc-volume', target: '/volume' }])
    .withCopyFilesToContainer([{ source: 'files/note', target: '/tmp/note', mode: 0o600 }])
    .withCopyDirectoriesToContainer([{ source: 'files/folder', target: '/opt' }])
    .withCopyContentToContainer([{ content: 'bytes\n', target: '/tmp/run', mode: 0o755 }]).start();
  show('copied before the start', (await box.exec(['sh', '-c', 'cat note run /opt/deep; stat -c %a note run'])).output);
  show('bound', (await box.exec(['sh', '-c', 'cat /bound/note; touch /bound/x 2>&1'])).output);
  show('tmpfs', (await box.exec(['sh', '-c', "df -k /scratch | tail -n 1 | tr -s ' ' | cut -d' ' -f2"])).output);
  await box.copyContentToContainer([{ content: 'later\n', target: '/volume/later' }]);
  await box.copyDirectoriesToContainer([{ source: 'files', target: '/tmp/all' }]);
  show('copied later', (await box.exec(['sh', '-c', 'cat /volume/later; find all | sort'])).output);
  await box.exec(['sh', '-c', 'mkdir made; echo inside > made/here']);
  const extract = tar.extract();
  (await box.copyArchiveFromContainer('/tmp/made')).pipe(extract);
  for await (const entry of extract) show('copied from it', [entry.header.name, (await bytes(entry)).toString()]);
  await fails('copied from nowhere', box.copyArchiveFromContainer('/no/such'));
}

async function networks() {
  const network = await new Network().start();
  const web = await new GenericContainer('ringer/web').withExposedPorts(8080).withNetwork(network).withNetworkAliases('site', 'other')
    .withWaitStrategy(Wait.forHttp('/', 8080)).start();
  const box = await busybox().withNetwork(network).start();
  for (const name of ['site', 'other']) show(`by the alias ${name}`, (await box.exec(['wget', '-q', '-O', '-', `http://${name}:8080/`])).output);
  show('its networks', web.getNetworkNames().map((name) => name === network.getName()));
  show('its address', (await box.exec(['wget', '-q', '-O', '-', `http://${web.getIpAddress(network.getName())}:8080/files/note`])).output);
  show('still over its published port', await fetched(web));
  const host = await busybox().withNetworkMode('host').start();
  show('in the network of the host', (await host.exec(['wget', '-q', '-O', '-', `http://127.0.0.1:${web.getMappedPort(8080)}/`])).output);
  show('removed while in use', await network.stop().then(() => 'removed', (error) => error.statusCode));
  for (const container of [web, box, host]) await container.stop(atOnce);
  await network.stop();
  show('gone', (await (await getContainerRuntimeClient()).container.dockerode.listNetworks({ filters: { name: [network.getName()] } })).length);
}

async function images() {
  fs.mkdirSync('context');
  fs.writeFileSync('context/Dockerfile', 'FROM busybox AS first\nARG WHO=nobody\nCOPY note /note\nRUN echo for $WHO >> /note\nCMD cat /note; sleep 300\nFROM first\nRUN exit 3\n');
  fs.writeFileSync('context/note', 'copied\n');
  fs.writeFileSync('context/.dockerignore', 'secret\n');
  const image = await GenericContainer.fromDockerfile('context').withBuildArgs({ WHO: 'node' }).withTarget('first').build('node-tc-built:one', { deleteOnExit: true });
  const built = await image.withWaitStrategy(Wait.forLogMessage('for node')).start();
  show('built', (await built.exec(['cat', '/note'])).output);
  await fails('built in vain', GenericContainer.fromDockerfile('context').build());
  await fails('an image that is none', new GenericContainer(`${process.env.REGISTRY}/none:latest`).start());
  const pulled = await new GenericContainer(`${process.env.REGISTRY}/busybox:latest`).withCommand(['sleep', '300']).withPullPolicy({ shouldPull: () => true }).start();
  show('an image from a registry', (await pulled.exec(['echo', 'pulled'])).output);
}

/** Leaves one of everything behind, says so, and waits to be killed. */
async function left() {
  const network = await new Network().start();
  await busybox().withNetwork(network).start();
  await busybox().start();
  const client = await getContainerRuntimeClient();
  const { sessionId } = await getReaper(client);
  const label = 'org.testcontainers.session-id';
  await client.container.dockerode.createVolume({ Name: 'node-tc-left', Labels: { [label]: sessionId } });
  fs.mkdirSync('left');
  fs.writeFileSync('left/Dockerfile', 'FROM busybox\nRUN touch /left\n');
  await GenericContainer.fromDockerfile('left').build('node-tc-left:one');
  fs.writeFileSync('session.part', `${label}=${sessionId}`);
  fs.renameSync('session.part', 'session');
  setTimeout(() => {}, 300000);
}

const groups = { containers, waits, files, networks, images, left };
groups[process.argv[2]]().then(() => process.argv[2] === 'left' || process.exit(0), (error) => {
  console.log(error);
  process.exit(1);
});
