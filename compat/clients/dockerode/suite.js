// Drives a Docker daemon through dockerode, one group of its API per run: suite.js GROUP.
//
// What it prints is compared between daemons. A call that fails prints its status and dockerode's message, which is the
// daemon's own behind what dockerode makes of the status.

const { once } = require('events');
const { PassThrough } = require('stream');
const Docker = require('dockerode');
const tar = require('tar-stream');

const docker = new Docker();

function show(what, value) {
  console.log(`${what}: ${JSON.stringify(value)}`);
}

/** Shows the error that the call has to end in. */
async function fails(what, call) {
  let value;
  try {
    value = await call;
  } catch (error) {
    show(what, [error.statusCode, error.message]);
    return;
  }
  throw new Error(`${what} did not fail but gave ${value}`);
}

function pick(object, ...keys) {
  return Object.fromEntries(keys.map((key) => [key, object[key]]));
}

async function bytes(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** What comes through a stream that is not a terminal's: standard output and standard error. */
async function apart(stream) {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()];
  docker.modem.demuxStream(stream, stdout, stderr);
  stream.on('end', () => { stdout.end(); stderr.end(); });
  const [out, err] = await Promise.all([bytes(stdout), bytes(stderr)]);
  return [out.toString(), err.toString()];
}

/** The messages of a pull, a build and the like; an error among them is thrown, which dockerode does not. */
async function progress(stream) {
  const messages = await new Promise((resolve, reject) => {
    docker.modem.followProgress(stream, (error, all) => (error ? reject(error) : resolve(all)));
  });
  const failed = messages.find(({ error }) => error);
  if (failed) throw new Error(failed.error);
  return messages;
}

async function archive(files) {
  const pack = tar.pack();
  for (const [name, text] of Object.entries(files)) pack.entry({ name }, text);
  pack.finalize();
  return bytes(pack);
}

async function unpacked(stream) {
  const entries = [];
  const extract = tar.extract();
  stream.pipe(extract);
  for await (const entry of extract) {
    entries.push([entry.header.name, entry.header.type, entry.header.type === 'file' ? (await bytes(entry)).toString() : '']);
    entry.resume();
  }
  return entries;
}

async function running(options) {
  const box = await docker.createContainer({ Image: 'busybox', Cmd: ['sleep', '300'], HostConfig: {}, ...options });
  await box.start();
  return box;
}

async function exec(box, command, options) {
  const made = await box.exec({ Cmd: command, AttachStdout: true, AttachStderr: true, ...options });
  const output = await apart(await made.start({}));
  return [...output, (await made.inspect()).ExitCode];
}

async function eventually(condition) {
  const deadline = Date.now() + 10000;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`never: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function system() {
  show('ping', (await docker.ping()).toString());
  const version = await docker.version();
  show('version', [version.Os, version.Arch, typeof version.ApiVersion, version.Components.map(({ Name }) => Name).includes('Engine')]);
  const info = await docker.info();
  show('info', [info.OSType, info.Architecture, info.Swarm.LocalNodeState, info.NCPU > 0, info.MemTotal > 0, info.IndexServerAddress]);
  const pinned = new Docker({ version: 'v1.41' });
  show('df of 1.41', Object.keys(await pinned.df()).filter((kind) => ['Images', 'Containers', 'Volumes', 'BuildCache', 'LayersSize'].includes(kind)).sort());
  show('ping of 1.41', (await pinned.ping()).toString());
}

async function containers() {
  const box = await docker.createContainer({
    Image: 'busybox', Cmd: ['sleep', '300'], name: 'node-box', Env: ['A=1'], Labels: { kind: 'node' }, Hostname: 'node', WorkingDir: '/tmp',
    StopSignal: 'SIGKILL', ExposedPorts: { '80/tcp': {} },
    HostConfig: {
      Memory: 67108864, NanoCpus: 500000000, PidsLimit: 50, CapAdd: ['SYS_CHROOT'], Tmpfs: { '/t': 'size=1m' }, ShmSize: 8388608,
      PortBindings: { '80/tcp': [{ HostIp: '127.0.0.1', HostPort: '' }] }, ExtraHosts: ['h:192.0.2.1'], Dns: ['192.0.2.53'],
      RestartPolicy: { Name: 'on-failure', MaximumRetryCount: 2 }, LogConfig: { Type: 'json-file', Config: { 'max-size': '1m' } },
      Mounts: [{ Type: 'volume', Source: 'node-volume', Target: '/m' }, { Type: 'tmpfs', Target: '/mt' }],
      Ulimits: [{ Name: 'nofile', Soft: 100, Hard: 200 }],
    },
  });
  show('start', (await box.start()).toString());
  await fails('start twice', box.start());
  const found = await box.inspect();
  show('state', pick(found.State, 'Status', 'Running', 'Paused', 'ExitCode', 'OOMKilled', 'Error'));
  show('config', pick(found.Config, 'Hostname', 'Env', 'Cmd', 'Image', 'WorkingDir', 'Labels', 'StopSignal', 'ExposedPorts', 'Tty', 'User'));
  show('host config', pick(found.HostConfig, 'Memory', 'NanoCpus', 'PidsLimit', 'CapAdd', 'Tmpfs', 'ShmSize', 'ExtraHosts', 'Dns', 'RestartPolicy', 'LogConfig', 'Mounts', 'Ulimits', 'PortBindings'));
  show('mounts', found.Mounts.map((mount) => pick(mount, 'Type', 'Name', 'Destination', 'RW')).sort((a, b) => a.Destination.localeCompare(b.Destination)));
  show('ports', Object.entries(found.NetworkSettings.Ports).map(([port, hosts]) => [port, hosts.map(({ HostIp }) => HostIp)]));
  const [listed] = await docker.listContainers({ all: true, filters: { label: ['kind=node'] } });
  show('list', pick(listed, 'Names', 'Image', 'Command', 'State', 'Labels'));
  show('list of none', await docker.listContainers({ filters: JSON.stringify({ name: ['node-nobody'] }) }));
  show('list with sizes', typeof (await docker.listContainers({ size: true, limit: 1 }))[0].SizeRootFs);
  show('top', (await box.top({ ps_args: '-o pid,args' })).Processes.map((line) => line[line.length - 1]));
  const stats = await box.stats({ stream: false });
  show('stats', [stats.name, stats.pids_stats.current >= 1, stats.cpu_stats.cpu_usage.total_usage > 0, 'eth0' in stats.networks]);
  const live = await box.stats({ stream: true });
  show('stats as a stream', Object.keys(JSON.parse((await once(live, 'data'))[0])).includes('memory_stats'));
  live.destroy();
  await box.pause();
  show('paused', (await box.inspect()).State.Status);
  await fails('exec in one that is paused', box.exec({ Cmd: ['true'] }).then((made) => made.start({})));
  await box.unpause();
  show('update', await box.update({ Memory: 134217728, MemorySwap: 268435456, RestartPolicy: { Name: 'no' } }));
  show('updated', pick((await box.inspect()).HostConfig, 'Memory', 'MemorySwap', 'RestartPolicy'));
  await box.rename({ name: 'node-renamed' });
  show('renamed', (await docker.getContainer('node-renamed').inspect()).Name);
  await box.restart({ t: 0 });
  await box.kill({ signal: 'SIGWINCH' });
  show('killed softly', (await box.inspect()).State.Running);
  const wait = box.wait({ condition: 'next-exit' });
  await box.stop({ t: 1 });
  show('wait', (await wait).StatusCode);
  await fails('stop twice', box.stop());
  await box.start();
  await box.kill();
  show('wait again', (await box.wait()).StatusCode);
  await fails('kill of one that is not running', box.kill());
  await box.remove({ v: true, force: true });
  await fails('inspect of one removed', box.inspect());
  await fails('remove of one removed', box.remove());
}

async function rest() {
  const box = await running({ name: 'node-rest', Cmd: ['sh', '-c', 'echo x > /added; sleep 300'] });
  await eventually(async () => ((await box.changes()) || []).length > 0);
  show('changes', await box.changes());
  const committed = await box.commit({ repo: 'node-committed', tag: 'one', comment: 'said', author: 'node', changes: 'CMD ["cat", "/added"]' });
  show('commit', committed.Id.slice(0, 7));
  const image = await docker.getImage('node-committed:one').inspect();
  show('committed', pick(image, 'Author', 'Comment', 'RepoTags'));
  const output = new PassThrough();
  const text = bytes(output);
  const [result, used] = await docker.run('node-committed:one', [], output, { Tty: false });
  output.end();
  show('run', [result.StatusCode, (await text).toString()]);
  await used.remove();
  const names = (await unpacked(await box.export())).map(([name]) => name);
  show('export', ['added', 'bin/busybox'].map((name) => names.includes(name)));
  await box.remove({ force: true });
  await docker.createContainer({ Image: 'busybox', Labels: { prune: 'node' } });
  const pruned = await docker.pruneContainers({ filters: { label: ['prune=node'] } });
  show('prune', pruned.ContainersDeleted.length);
}

async function streams() {
  const talker = await docker.createContainer({ Image: 'busybox', Cmd: ['sh', '-c', 'echo one; sleep 0.2; echo two >&2; sleep 0.2; echo three'] });
  const attached = apart(await talker.attach({ stream: true, stdout: true, stderr: true }));
  await talker.start();
  show('attach', await attached);
  show('wait', (await talker.wait()).StatusCode);
  show('logs', (await talker.logs({ stdout: true, stderr: true })).toString('latin1'));
  show('logs of stderr, with its tail', (await talker.logs({ stderr: true, tail: 1 })).toString('latin1'));
  show('logs, followed', await apart(await talker.logs({ stdout: true, stderr: true, follow: true })));
  show('logs with times', /\d{4}-\d\d-\d\dT[\d:.]+Z one\n/.test((await talker.logs({ stdout: true, timestamps: true })).toString()));
  show('logs since then', (await talker.logs({ stdout: true, since: Math.floor(Date.now() / 1000) + 60 })).length);
  await fails('logs of nothing', talker.logs({}));

  const cat = await docker.createContainer({ Image: 'busybox', Cmd: ['cat'], OpenStdin: true, StdinOnce: true, AttachStdin: true });
  const typed = await cat.attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack: true });
  const echoed = apart(typed);
  await cat.start();
  typed.write('through the socket\n');
  typed.end('and its end\n');
  show('attach with stdin', await echoed);
  show('wait for the end of stdin', (await cat.wait()).StatusCode);

  const terminal = await docker.createContainer({ Image: 'busybox', Cmd: ['sh', '-c', 'read x; stty size; echo $x'], Tty: true, OpenStdin: true });
  const screen = await terminal.attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack: true });
  await terminal.start();
  show('resize', (await terminal.resize({ h: 30, w: 100 })).toString());
  screen.write('typed\n');
  show('a terminal', (await bytes(screen)).toString());
  await fails('resize of one that ended', terminal.wait().then(() => terminal.resize({ h: 1, w: 1 })));
}

async function execs() {
  const box = await running({ name: 'node-exec' });
  show('exec', await exec(box, ['echo', 'hello']));
  show('exec that fails', await exec(box, ['sh', '-c', 'echo out; echo bad >&2; exit 7']));
  show('exec with settings', await exec(box, ['sh', '-c', 'id -u; pwd; echo $X'], { User: '1', WorkingDir: '/tmp', Env: ['X=y'] }));

  const sort = await box.exec({ Cmd: ['sort'], AttachStdin: true, AttachStdout: true, AttachStderr: true });
  const typed = await sort.start({ hijack: true, stdin: true });
  const sorted = apart(typed);
  typed.end('b\na\n');
  show('exec with stdin', await sorted);

  const terminal = await box.exec({ Cmd: ['sh', '-c', 'read x; stty size; tty'], AttachStdin: true, AttachStdout: true, Tty: true });
  const screen = await terminal.start({ hijack: true, stdin: true, Tty: true });
  await terminal.resize({ h: 25, w: 90 });
  screen.write('go\n');
  show('exec with a terminal', (await bytes(screen)).toString());

  const detached = await box.exec({ Cmd: ['sh', '-c', 'exit 4'] });
  await detached.start({ Detach: true });
  await eventually(async () => (await detached.inspect()).Running === false);
  show('inspect', pick(await detached.inspect(), 'ExitCode', 'Running', 'OpenStdin', 'OpenStdout', 'OpenStderr', 'CanRemove', 'ProcessConfig'));
  show('start twice', (await bytes(await detached.start({}))).toString());
  show('exec of nothing', (await exec(box, ['/no/such']))[2]);
  await box.remove({ force: true });
  await fails('exec in none', box.exec({ Cmd: ['true'] }));
  await fails('exec that is none', docker.getExec('none').inspect());
}

async function archives() {
  const box = await docker.createContainer({ Image: 'busybox', name: 'node-archive' });
  await box.putArchive(await archive({ 'folder/note': 'hello', other: 'x' }), { path: '/tmp' });
  show('get', await unpacked(await box.getArchive({ path: '/tmp/folder' })));
  const { headers } = await box.infoArchive({ path: '/tmp/other' });
  show('info', pick(JSON.parse(Buffer.from(headers['x-docker-container-path-stat'], 'base64')), 'name', 'size', 'mode', 'linkTarget'));
  await fails('a file over a folder', box.putArchive(await archive({ folder: 'x' }), { path: '/tmp', noOverwriteDirNonDir: true }));
  await fails('get of nothing', box.getArchive({ path: '/no/such' }));
  await fails('put to nothing', box.putArchive(await archive({ a: 'b' }), { path: '/no/such' }));
  await fails('put of what is no archive', box.putArchive(Buffer.from('not a tar, and long enough to be seen as none'.repeat(20)), { path: '/tmp' }));
}

async function images() {
  const web = docker.getImage('ringer/web');
  show('inspect', pick(await web.inspect(), 'RepoTags', 'Os', 'Config').RepoTags);
  show('config', pick((await web.inspect()).Config, 'Env', 'Cmd', 'Entrypoint', 'WorkingDir', 'User', 'ExposedPorts', 'Volumes', 'Labels', 'StopSignal'));
  show('history', (await web.history()).map((layer) => pick(layer, 'CreatedBy', 'Comment', 'Tags')));
  await web.tag({ repo: 'node-image', tag: 'one' });
  show('list', (await docker.listImages({ filters: { reference: ['node-image'] } })).map(({ RepoTags }) => RepoTags));
  const saved = await bytes(await docker.getImage('node-image:one').get());
  const both = await bytes(await docker.getImages({ names: ['busybox', 'node-image:one'] }));
  show('save', [saved.length > 1e6, both.length > 1e6]);
  show('remove', await docker.getImage('node-image:one').remove());
  show('load', (await progress(await docker.loadImage(saved))).map(({ stream }) => stream).filter(Boolean));
  await docker.getImage('node-image:one').remove();
  show('load, quiet', (await progress(await docker.loadImage(saved, { quiet: true }))).map(({ stream }) => stream));
  await docker.getImage('node-image:one').remove({ force: true });
  show('load of what is no archive', await docker.loadImage(await archive({ a: 'b' })).then(progress).then(() => 'loaded', () => 'refused'));
  const imported = await docker.importImage(await archive({ file: 'x' }), { repo: 'node-imported', tag: 'one', changes: 'CMD ["x"]', message: 'said' });
  show('import', (await bytes(imported)).includes('sha256:'));
  show('imported', pick(await docker.getImage('node-imported:one').inspect(), 'Comment', 'RepoTags'));
  show('prune', pick(await docker.pruneImages({ filters: { label: ['no=such'] } }), 'ImagesDeleted', 'SpaceReclaimed'));
  await fails('inspect of none', docker.getImage('node-nothing').inspect());
  await fails('remove of none', docker.getImage('node-nothing').remove());
  await fails('tag of none', docker.getImage('node-nothing').tag({ repo: 'x' }));
  await fails('tag with a bad name', web.tag({ repo: 'Node:Bad' }));
  const box = await docker.createContainer({ Image: 'node-imported:one' });
  await fails('remove while in use', docker.getImage((await docker.getImage('node-imported:one').inspect()).Id).remove());
  await box.remove();
  await docker.getImage('node-imported:one').remove();
}

async function registry() {
  const name = `${process.env.REGISTRY}/node/busybox`;
  await docker.getImage('busybox').tag({ repo: name, tag: 'one' });
  const pushed = await progress(await docker.getImage(`${name}:one`).push({ authconfig: { username: '', password: '' } }));
  show('push', pushed.map(({ aux }) => aux).filter(Boolean).map(({ Tag, Digest, Size }) => [Tag, Digest.slice(0, 7), Size > 0]));
  await docker.getImage(`${name}:one`).remove();
  const pulled = await progress(await docker.pull(`${name}:one`));
  show('pull', pulled.map(({ status }) => status).filter((status) => /^(Pulling from|Status)/.test(status)));
  show('pull again', (await progress(await docker.pull(`${name}:one`))).map(({ status }) => status).pop());
  const { RepoDigests } = await docker.getImage(`${name}:one`).inspect();
  show('digest', RepoDigests.map((digest) => digest.split('@')[0]).includes(name));
  show('distribution', pick((await docker.getImage(`${name}:one`).distribution()).Descriptor, 'mediaType').mediaType.includes('manifest'));
  await docker.createImage({ fromImage: name, tag: 'one' }).then(progress);
  await fails('pull of none', docker.pull(`${process.env.REGISTRY}/none:latest`).then(progress));
  const login = process.env.LOGIN_REGISTRY;
  const authconfig = { username: 'ringer', password: 'secret', serveraddress: login };
  show('login', (await docker.checkAuth(authconfig)).Status);
  await fails('login with a wrong password', docker.checkAuth({ ...authconfig, password: 'wrong' }));
  const secret = await progress(await docker.pull(`${login}/busybox:latest`, { authconfig }));
  show('pull with credentials', secret.pop().status.replace(/Downloaded newer image|Image is up to date/, 'Here'));
  await fails('push without credentials', docker.getImage('busybox').tag({ repo: `${login}/node`, tag: 'x' })
    .then(() => docker.getImage(`${login}/node:x`).push({})).then(progress));
  // Its words name the resolver, and there is no network to search in.
  show('search', await docker.searchImages({ term: 'x' }).then(() => 'found', (error) => error.statusCode));
}

async function networks() {
  const net = await docker.createNetwork({
    Name: 'node-net', Driver: 'bridge', Labels: { kind: 'node' }, Attachable: true, CheckDuplicate: true,
    IPAM: { Config: [{ Subnet: '198.51.100.0/24', Gateway: '198.51.100.254' }] }, Options: { 'com.docker.network.bridge.enable_icc': 'true' },
  });
  show('inspect', pick(await net.inspect(), 'Name', 'Scope', 'Driver', 'Internal', 'Attachable', 'Ingress', 'Labels', 'Options', 'IPAM', 'Containers'));
  const one = await running({ name: 'node-one', HostConfig: { NetworkMode: 'node-net' } });
  const other = await running({ name: 'node-other' });
  await net.connect({ Container: other.id, EndpointConfig: { Aliases: ['other'], IPAMConfig: { IPv4Address: '198.51.100.77' } } });
  show('by alias', (await exec(one, ['ping', '-c', '1', '-W', '3', 'other']))[2]);
  show('address', (await other.inspect()).NetworkSettings.Networks['node-net'].IPAddress);
  show('members', Object.values((await net.inspect()).Containers).map(({ Name }) => Name).sort());
  await fails('connect twice', net.connect({ Container: other.id }));
  await net.disconnect({ Container: other.id });
  // With two, dockerd names them in any order.
  await fails('remove while in use', net.remove());
  await net.disconnect({ Container: 'node-one', Force: true });
  await fails('disconnect of one that is not connected', net.disconnect({ Container: other.id }));
  show('list', (await docker.listNetworks({ filters: { label: ['kind=node'] } })).map(({ Name }) => Name));
  await one.remove({ force: true });
  await other.remove({ force: true });
  show('prune', await docker.pruneNetworks({ filters: { label: ['kind=node'] } }));
  await fails('inspect of one pruned', net.inspect());
  await fails('a subnet that is none', docker.createNetwork({ Name: 'node-bad', IPAM: { Config: [{ Subnet: 'nowhere' }] } }));
}

async function volumes() {
  const made = await docker.createVolume({ Name: 'node-vol', Labels: { kind: 'node' }, DriverOpts: { type: 'tmpfs', device: 'tmpfs', o: 'size=1m' } });
  const volume = docker.getVolume(made.name || made.Name);
  show('inspect', pick(await volume.inspect(), 'Name', 'Driver', 'Scope', 'Labels', 'Options'));
  const box = await running({ HostConfig: { Binds: ['node-vol:/v'] } });
  show('size', (await exec(box, ['sh', '-c', 'df -k /v | tail -n 1 | tr -s " " | cut -d" " -f2']))[0]);
  await fails('remove while in use', volume.remove());
  show('list', (await docker.listVolumes({ filters: { dangling: ['false'], label: ['kind=node'] } })).Volumes.map(({ Name }) => Name));
  await box.remove({ force: true });
  await volume.remove();
  await fails('inspect of one removed', volume.inspect());
  await fails('a name that is none', docker.createVolume({ Name: 'not/good' }));
  await docker.createVolume({ Labels: { kind: 'node' } });
  show('prune', (await docker.pruneVolumes({ filters: { label: ['kind=node'] } })).VolumesDeleted.length);
}

async function events() {
  const since = Math.floor(Date.now() / 1000);
  const stream = await docker.getEvents({ filters: { label: ['kind=node-events'] } });
  const seen = [];
  let rest = '';
  const destroyed = new Promise((resolve) => {
    stream.on('data', (chunk) => {
      const lines = (rest + chunk).split('\n');
      rest = lines.pop();
      for (const event of lines.map((line) => JSON.parse(line))) {
        seen.push([event.Type, event.Action, event.Actor.Attributes.name, event.Actor.Attributes.exitCode, event.scope]);
        if (event.Action === 'destroy') resolve();
      }
    });
  });
  const box = await docker.createContainer({ Image: 'busybox', Cmd: ['sh', '-c', 'exit 3'], name: 'node-events', Labels: { kind: 'node-events' } });
  await box.start();
  await box.wait();
  await box.remove();
  await destroyed;
  stream.destroy();
  for (const event of seen) show('event', event);
  const past = await docker.getEvents({ since, until: Math.floor(Date.now() / 1000) + 1, filters: { container: ['node-events'], event: ['die', 'destroy'] } });
  show('past', (await bytes(past)).toString().trim().split('\n').map((line) => JSON.parse(line).Action));
  await fails('a filter that is none', docker.getEvents({ filters: 'nosuch' }));
}

async function build() {
  const context = await archive({
    Dockerfile: 'FROM busybox\nARG WHO=nobody\nCOPY note /\nRUN echo made for $WHO >> /note\nLABEL a=b\nCMD cat /note\n',
    note: 'copied\n', 'sub/Other': 'FROM busybox\nRUN exit 3\n',
  });
  const messages = await progress(await docker.buildImage(context, { t: 'node-built', buildargs: { WHO: 'node' }, labels: { kind: 'node' }, rm: true }));
  show('build', messages.map(({ stream }) => stream).filter((line) => /^(Step|Successfully tagged)/.test(line)));
  show('aux', messages.map(({ aux }) => aux).filter(Boolean).map(({ ID }) => ID.slice(0, 7)));
  show('labels', (await docker.getImage('node-built').inspect()).Config.Labels);
  const output = new PassThrough();
  const text = bytes(output);
  const [result] = await docker.run('node-built', [], output, { Tty: false, HostConfig: { AutoRemove: true } });
  output.end();
  show('run', [result.StatusCode, (await text).toString()]);
  await fails('build of what fails', docker.buildImage(context, { dockerfile: 'sub/Other', rm: true, forcerm: true }).then(progress));
  await fails('build without a Dockerfile', docker.buildImage(context, { dockerfile: 'nosuch' }).then(progress));
  await docker.getImage('node-built').remove();
}

async function errors() {
  await fails('an image that is none', docker.createContainer({ Image: 'node-nothing:none' }));
  await fails('no image at all', docker.createContainer({}));
  await fails('a command that is none', docker.createContainer({ Image: 'busybox', Cmd: ['/no/such'], name: 'node-broken' }).then((box) => box.start()));
  await fails('a name that is taken', docker.createContainer({ Image: 'busybox', name: 'node-broken' }));
  await fails('a name that is bad', docker.createContainer({ Image: 'busybox', name: '-bad' }));
  const box = docker.getContainer('node-broken');
  await fails('pause of one that is not running', box.pause());
  await fails('exec in one that is not running', box.exec({ Cmd: ['true'] }));
  await fails('top of one that is not running', box.top());
  await fails('kill with a signal that is none', box.kill({ signal: 'NOSUCH' }));
  await fails('rename to a name that is bad', box.rename({ name: '/' }));
  await fails('a network that is none', docker.createContainer({ Image: 'busybox', HostConfig: { NetworkMode: 'node-nowhere' } }).then((made) => made.start()));
  await fails('a bind that is bad', docker.createContainer({ Image: 'busybox', HostConfig: { Binds: ['relative:/a:nosuch'] } }));
  await fails('a filter that is none', docker.listContainers({ filters: { nosuch: ['x'] } }));
  await fails('wait for what is none', docker.getContainer('node-nobody').wait());
  show('attach to what is none', await docker.getContainer('node-nobody').attach({ stream: true, stdin: true, stdout: true, hijack: true })
    .then(() => 'attached', (error) => error.statusCode));
}

async function swarm() {
  for (const call of ['listServices', 'listNodes', 'listTasks', 'listSecrets', 'listConfigs', 'swarmInspect', 'swarmLeave']) {
    await fails(call, docker[call]());
  }
  show('plugins', await docker.listPlugins());
}

const groups = { system, containers, rest, streams, execs, archives, images, registry, networks, volumes, events, build, errors, swarm };
// A connection that a refused stream keeps open is not waited for.
groups[process.argv[2]]().then(() => process.exit(0), (error) => {
  console.log(error);
  process.exit(1);
});
