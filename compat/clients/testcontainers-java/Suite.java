import com.github.dockerjava.api.model.Bind;
import com.github.dockerjava.api.model.HealthCheck;
import com.github.dockerjava.api.model.Volume;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import org.testcontainers.DockerClientFactory;
import org.testcontainers.containers.BindMode;
import org.testcontainers.containers.Container.ExecResult;
import org.testcontainers.containers.GenericContainer;
import org.testcontainers.containers.Network;
import org.testcontainers.containers.output.OutputFrame.OutputType;
import org.testcontainers.containers.startupcheck.OneShotStartupCheckStrategy;
import org.testcontainers.containers.wait.strategy.Wait;
import org.testcontainers.images.builder.ImageFromDockerfile;
import org.testcontainers.images.builder.Transferable;
import org.testcontainers.utility.DockerImageName;
import org.testcontainers.utility.MountableFile;

/**
 * Uses testcontainers for Java as tests do: Suite GROUP...
 *
 * <p>What it prints is compared between daemons. Its reaper is the image in TESTCONTAINERS_RYUK_CONTAINER_IMAGE.
 */
class Suite {
    static final String SESSION = "org.testcontainers.sessionId";

    /** A container of which tests need no more than its image and its command. */
    static class Box extends GenericContainer<Box> {
        Box(String image, String... command) {
            super(DockerImageName.parse(image));
            if (command.length > 0) withCommand(command);
        }
    }

    interface Call {
        void run() throws Exception;
    }

    static void show(String what, Object... values) {
        System.out.println(what + ": " + List.of(values).toString().replace("\n", "\\n"));
    }

    static void show(String what, ExecResult result) {
        show(what, result.getExitCode(), result.getStdout(), result.getStderr());
    }

    /** Shows the innermost reason why the call fails. */
    static void fails(String what, Call call) {
        try {
            call.run();
        } catch (Throwable error) {
            while (error.getCause() != null) error = error.getCause();
            show(what, error.getClass().getSimpleName(), String.valueOf(error.getMessage()));
            return;
        }
        throw new IllegalStateException(what + " did not fail");
    }

    static String fetched(GenericContainer<?> container, String path) throws Exception {
        URI address = URI.create("http://" + container.getHost() + ":" + container.getMappedPort(8080) + path);
        return HttpClient.newHttpClient().send(HttpRequest.newBuilder(address).build(), BodyHandlers.ofString()).body();
    }

    static void containers() throws Exception {
        try (Box web = new Box("ringer/web").withExposedPorts(8080).withEnv("A", "1").withLabel("kind", "java").waitingFor(Wait.forHttp("/"))) {
            web.withCreateContainerCmdModifier(command -> command.withHostName("web").withUser("root").getHostConfig().withMemory(67108864L));
            web.start();
            show("over a published port", fetched(web, "/"));
            show("exec", web.execInContainer("sh", "-c", "echo $A $SERVED; hostname; echo err >&2; exit 3"));
            show("exec as another user", web.execInContainerWithUser("www-data", "id", "-u"));
            show("labels", new TreeSet<>(web.getContainerInfo().getConfig().getLabels().keySet()));
            show("memory", web.getContainerInfo().getHostConfig().getMemory());
            show("running", web.isRunning(), web.getCurrentContainerInfo().getState().getStatus());
            var reapers = DockerClientFactory.instance().client().listContainersCmd().withLabelFilter(Map.of("org.testcontainers.ryuk", "true")).exec();
            show("reapers", reapers.size(), reapers.get(0).getImage(), reapers.get(0).getState());
        }
        try (Box once = new Box("busybox", "sh", "-c", "echo out; echo err >&2").withStartupCheckStrategy(new OneShotStartupCheckStrategy())) {
            once.start();
            show("logs", once.getLogs(OutputType.STDOUT), once.getLogs(OutputType.STDERR));
        }
        fails("an image that is none", () -> new Box(System.getenv("REGISTRY") + "/none:latest")
            .withImagePullPolicy(name -> false).withStartupAttempts(1).start());
        fails("a command that is none", () -> new Box("busybox", "/no/such").start());
    }

    static void waits() throws Exception {
        List<String> lines = new ArrayList<>();
        try (Box box = new Box("busybox", "sh", "-c", "echo one; sleep 0.5; echo is ready; sleep 300")) {
            box.withLogConsumer(frame -> lines.add(frame.getUtf8StringWithoutLineEnding())).waitingFor(Wait.forLogMessage(".*is ready.*", 1)).start();
            while (!lines.contains("is ready")) Thread.sleep(20);
            show("for a line of the log", lines);
        }
        try (Box web = new Box("ringer/web").withExposedPorts(8080).waitingFor(Wait.forListeningPort())) {
            web.start();
            show("for a port", fetched(web, "/files/note"));
        }
        try (Box box = checked("test -e /tmp/well", 100, "sh", "-c", "sleep 0.5; touch /tmp/well; sleep 300")) {
            box.start();
            show("for health", box.isHealthy());
        }
        try (Box box = new Box("busybox", "sh", "-c", "sleep 0.5; touch /tmp/there; sleep 300")) {
            box.waitingFor(Wait.forSuccessfulCommand("test -e /tmp/there")).start();
            show("for a command", box.execInContainer("ls", "/tmp"));
        }
        fails("for one that ends badly", () -> new Box("busybox", "sh", "-c", "exit 5")
            .withStartupCheckStrategy(new OneShotStartupCheckStrategy()).start());
    }

    static Box checked(String test, int retries, String... command) {
        var check = new HealthCheck().withTest(List.of("CMD-SHELL", test)).withInterval(200_000_000L).withTimeout(5_000_000_000L).withRetries(retries);
        return new Box("busybox", command).withCreateContainerCmdModifier(create -> create.withHealthcheck(check)).waitingFor(Wait.forHealthcheck());
    }

    static void files() throws Exception {
        Path host = Files.createDirectories(Path.of("files/folder")).getParent();
        Files.writeString(host.resolve("note"), "from the host\n");
        Files.writeString(host.resolve("folder/deep"), "deep\n");
        try (Box box = new Box("busybox", "sleep", "300").withWorkingDirectory("/tmp").withTmpFs(Map.of("/scratch", "size=1m"))) {
            box.withFileSystemBind(host.toAbsolutePath().toString(), "/bound", BindMode.READ_ONLY);
            box.withCreateContainerCmdModifier(create -> {
                var binds = new ArrayList<>(List.of(create.getHostConfig().getBinds()));
                binds.add(new Bind("java-tc-volume", new Volume("/volume")));
                create.getHostConfig().withBinds(binds);
            });
            box.withCopyFileToContainer(MountableFile.forHostPath(host.resolve("note"), 0600), "/tmp/note");
            box.withCopyFileToContainer(MountableFile.forHostPath(host.resolve("folder")), "/opt");
            box.withCopyToContainer(Transferable.of("bytes\n", 0755), "/tmp/run");
            box.start();
            show("copied before the start", box.execInContainer("sh", "-c", "cat note run /opt/deep; stat -c %a note run"));
            show("bound", box.execInContainer("sh", "-c", "cat /bound/note; touch /bound/x 2>&1"));
            show("tmpfs", box.execInContainer("sh", "-c", "df -k /scratch | tail -n 1 | tr -s ' ' | cut -d' ' -f2"));
            box.copyFileToContainer(Transferable.of("later\n"), "/volume/later");
            show("copied later", box.execInContainer("cat", "/volume/later"));
            box.execInContainer("sh", "-c", "echo made inside > /tmp/made");
            box.copyFileFromContainer("/tmp/made", "made");
            show("copied from it", Files.readString(Path.of("made")));
            fails("copied from nowhere", () -> box.copyFileFromContainer("/no/such", "nothing"));
        }
    }

    static void networks() throws Exception {
        try (Network network = Network.newNetwork();
            Box web = new Box("ringer/web").withExposedPorts(8080).withNetwork(network).withNetworkAliases("site", "other").waitingFor(Wait.forHttp("/"));
            Box box = new Box("busybox", "sleep", "300").withNetwork(network).dependsOn(web)) {
            box.start();
            for (String name : List.of("site", "other")) {
                show("by the alias " + name, box.execInContainer("wget", "-q", "-O", "-", "http://" + name + ":8080/"));
            }
            show("its networks", web.getContainerInfo().getNetworkSettings().getNetworks().size());
            show("still over its published port", fetched(web, "/files/note"));
        }
    }

    static void images() throws Exception {
        var image = new ImageFromDockerfile("java-tc-built:one", true).withBuildArg("WHO", "java").withFileFromString("note", "copied\n")
            .withDockerfileFromBuilder(file -> file.from("busybox").copy("note", "/note").run("echo built >> /note").cmd("cat", "/note").build());
        try (var box = new GenericContainer<>(image).withStartupCheckStrategy(new OneShotStartupCheckStrategy())) {
            box.start();
            show("built", box.getLogs());
        }
        fails("built in vain", () -> new ImageFromDockerfile().withFileFromString("Dockerfile", "FROM busybox\nRUN exit 3\n").get());
        try (Box pulled = new Box(System.getenv("REGISTRY") + "/busybox:latest", "echo", "pulled")) {
            pulled.withImagePullPolicy(name -> true).withStartupCheckStrategy(new OneShotStartupCheckStrategy()).start();
            show("an image from a registry", pulled.getLogs());
        }
    }

    /** Leaves one of everything behind, says so, and waits to be killed. */
    static void left() throws Exception {
        Network network = Network.newNetwork();
        network.getId();
        new Box("busybox", "sleep", "300").withNetwork(network).start();
        new Box("busybox", "true").withStartupCheckStrategy(new OneShotStartupCheckStrategy()).start();
        var labels = new HashMap<>(DockerClientFactory.DEFAULT_LABELS);
        labels.put(SESSION, DockerClientFactory.SESSION_ID);
        DockerClientFactory.instance().client().createVolumeCmd().withName("java-tc-left").withLabels(labels).exec();
        new ImageFromDockerfile("java-tc-left:one", true).withFileFromString("Dockerfile", "FROM busybox\nRUN touch /left\n").get();
        Files.writeString(Path.of("session.part"), SESSION + "=" + DockerClientFactory.SESSION_ID);
        Files.move(Path.of("session.part"), Path.of("session"));
        Thread.sleep(Duration.ofMinutes(5).toMillis());
    }

    public static void main(String[] arguments) throws Exception {
        Map<String, Call> groups = Map.of("containers", Suite::containers, "waits", Suite::waits, "files", Suite::files,
            "networks", Suite::networks, "images", Suite::images, "left", Suite::left);
        for (String name : arguments) groups.get(name).run();
        System.exit(0);
    }
}
