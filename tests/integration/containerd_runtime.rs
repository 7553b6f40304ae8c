//! The runtime adapter on real containerds: the contract suite on each version, and what a fake cannot show.

mod installed {
    use crate::support::runtime::{Instance, Version};

    ringer::runtime_contract!(async { Instance::start(Version::Installed).await.map(Instance::into_bench) });
}

mod v17 {
    use crate::support::runtime::{Instance, Version};

    ringer::runtime_contract!(async { Instance::start(Version::V17).await.map(Instance::into_bench) });
}

mod v21 {
    use crate::support::runtime::{Instance, Version};

    ringer::runtime_contract!(async { Instance::start(Version::V21).await.map(Instance::into_bench) });
}

/// What only a real containerd can show.
mod real {
    use std::{fs, process::Command, time::Duration};

    use ringer::{
        backend::{
            images::contract,
            runtime::{
                Runtime, Stdio,
                contract::{Bench, exec_process, read_all, within},
            },
        },
        containerd::Containerd,
        model::id::{ContainerId, ExecId},
    };
    use rustix::process::{Pid, Signal, kill_process};
    use serde_json::json;

    use crate::support::runtime::{Instance, Version};

    const ALL: [Version; 3] = [Version::Installed, Version::V17, Version::V21];

    /// An instance's adapter as a bench, beside the guard that stays with the test.
    fn bench(instance: &Instance) -> Bench {
        Bench::new(std::sync::Arc::new(instance.containerd.clone()), &instance.parent, ())
    }

    async fn wait_in_background(containerd: &Containerd, id: &ContainerId) -> tokio::task::JoinHandle<i64> {
        let (containerd, id) = (containerd.clone(), id.clone());
        tokio::spawn(async move { containerd.wait(&id, None).await.expect("an exit").code })
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_wait_goes_on_when_containerd_is_killed() {
        for version in ALL {
            let Some(instance) = Instance::start(version).await else { continue };
            let bench = bench(&instance);
            let (id, streams) = bench.run_new(&["sh", "-c", "sleep 1.5; echo after; exit 9"], Stdio::default()).await;
            let waiter = wait_in_background(&instance.containerd, &id).await;
            instance.guard.kill_containerd();
            assert_eq!(read_all(streams).await.0, "after\n", "{version:?}");
            assert_eq!(within(waiter).await.unwrap(), 9, "{version:?}");
            bench.remove(&id).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_exit_while_containerd_is_down_is_told_later() {
        for version in ALL {
            let Some(instance) = Instance::start(version).await else { continue };
            let bench = bench(&instance);
            let (id, _streams) = bench.run_new(&["sh", "-c", "sleep 1000; exit 6"], Stdio::default()).await;
            let waiter = wait_in_background(&instance.containerd, &id).await;
            let sleep = within(last_of_two(&instance.containerd, &id)).await;
            instance.guard.kill_containerd();
            // The shell goes on and ends at once, long before containerd is back.
            kill_process(Pid::from_raw(i32::try_from(sleep).unwrap()).unwrap(), Signal::KILL).unwrap();
            let code = within(waiter).await.unwrap();
            // From 1.7 on containerd forgets it, and only a kernel from 6.15 on still tells.
            assert!(code == 6 || (version != Version::Installed && code == 255), "{version:?}: {code}");
            bench.remove(&id).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn changes_are_stored_as_a_layer() {
        for version in ALL {
            let Some(instance) = Instance::start(version).await else { continue };
            let make = async |parent: &str, script: &str| changed_by(&instance, parent, script).await;
            let changed = async |parent: &str| make(parent, "echo new > new; rm gone").await;
            let untouched = async |parent: &str| make(parent, "cat kept").await;
            contract::changes(&instance.containerd, changed, untouched).await;
        }
    }

    /// A container in whose root a script was run, in a mount namespace that ends with it.
    async fn changed_by(instance: &Instance, parent: &str, script: &str) -> ContainerId {
        let id = Bench::new(std::sync::Arc::new(instance.containerd.clone()), parent, ()).container().await;
        let mounts = instance.containerd.rootfs(&id).await.unwrap();
        let [mount] = &mounts[..] else { panic!("one mount: {mounts:?}") };
        let place = instance.guard.exec_root().join("place");
        fs::create_dir_all(&place).unwrap();
        let commands = "mount -t \"$1\" -o \"$2\" \"$3\" \"$4\"; cd \"$4\"; eval \"$5\"";
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-ec", commands, "sh", &mount.kind, &mount.options.join(","), &mount.source])
            .args([place.as_os_str(), script.as_ref()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        id
    }

    /// The shell's child, once it is there.
    async fn last_of_two(containerd: &Containerd, id: &ContainerId) -> u32 {
        loop {
            if let [_, pid] = containerd.pids(id).await.unwrap()[..] {
                return pid;
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_kill_for_want_of_memory_is_told_with_the_exit() {
        if !fs::exists("/sys/fs/cgroup/memory").unwrap() && !has_memory_controller() {
            return eprintln!("absent: a memory controller");
        }
        let Some(instance) = Instance::start(Version::Installed).await else { return };
        let bench = bench(&instance);
        let mut events = instance.containerd.ooms();
        let id = bench.container().await;
        let mut spec = serde_json::to_value(bench.spec(&id, &["tail", "/dev/zero"], Stdio::default())).unwrap();
        spec["linux"]["resources"] = json!({"memory": {"limit": 16 << 20, "swap": 16 << 20}});
        spec["mounts"][1] = json!({"destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind"]});
        spec["mounts"].as_array_mut().unwrap().pop();
        let spec = serde_json::from_value(spec).unwrap();
        let (_, _streams) = instance.containerd.create_task(&id, &spec, Stdio::default()).await.unwrap();
        instance.containerd.start_task(&id).await.unwrap();
        let exit = bench.exit(&id, None).await;
        assert_eq!((exit.code, exit.oom_killed), (137, true));
        assert_eq!(within(events.recv()).await.unwrap(), id);
        bench.remove(&id).await;
    }

    /// Of cgroup v2.
    fn has_memory_controller() -> bool {
        let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
        controllers.split_whitespace().any(|name| name == "memory")
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_writable_layer_outlives_the_task() {
        let Some(instance) = Instance::start(Version::Installed).await else { return };
        let bench = bench(&instance);
        let id = bench.container().await;
        for (script, output) in [("echo kept > /file", ""), ("cat /file", "kept\n")] {
            let streams = bench.run(&id, &["sh", "-c", script], Stdio::default()).await;
            assert_eq!(read_all(streams).await.0, output);
            bench.exit(&id, None).await;
            instance.containerd.delete_task(&id).await.unwrap();
        }
        assert!(instance.containerd.usage(&id).await.unwrap() > 0);
        bench.remove(&id).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_daemon_started_anew_reopens_the_streams() {
        for version in ALL {
            let Some(instance) = Instance::start(version).await else { continue };
            let bench = bench(&instance);
            // More than all pipes hold, so that it waits for us.
            let script = "i=0; while [ $i -lt 60000 ]; do echo line $i; i=$((i+1)); done; exit 2";
            let (id, streams) = bench.run_new(&["sh", "-c", script], Stdio::default()).await;
            drop(streams);
            let second = instance.guard.connect().await;
            let streams = second.reopen_io(&id, Stdio::default()).await.unwrap();
            let (out, _) = read_all(streams).await;
            assert_eq!(out.lines().count(), 60_000, "{version:?}");
            assert_eq!(second.wait(&id, None).await.unwrap().code, 2);
            bench.remove(&id).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_exit_is_told_although_a_child_holds_the_output() {
        let Some(instance) = Instance::start(Version::Installed).await else { return };
        let bench = bench(&instance);
        let (id, streams) = bench.run_new(&["sleep", "1000"], Stdio::default()).await;
        let exec = ExecId::random();
        let process = exec_process(&["sh", "-c", "sleep 1000 & exit 1"], Stdio::default());
        let _held = instance.containerd.create_exec(&id, &exec, &process, Stdio::default()).await.unwrap();
        instance.containerd.start_exec(&id, &exec).await.unwrap();
        assert_eq!(bench.exit(&id, Some(&exec)).await.code, 1);
        within(instance.containerd.delete_exec(&id, &exec)).await.unwrap();
        instance.containerd.kill(&id, None, 9, true).await.unwrap();
        read_all(streams).await;
        bench.remove(&id).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_is_left_after_the_last_container() {
        for version in ALL {
            let Some(instance) = Instance::start(version).await else { continue };
            let bench = bench(&instance);
            let (id, _streams) = bench.run_new(&["true"], Stdio::default()).await;
            bench.exit(&id, None).await;
            let parent = format!("/sys/fs/cgroup/memory/{}", instance.guard.namespace());
            assert!(fs::exists(&parent).unwrap() || !fs::exists("/sys/fs/cgroup/memory").unwrap());
            bench.remove(&id).await;
            instance.containerd.tidy().await;
            assert!(!fs::exists(&parent).unwrap());
            for folder in ["io", "oci", "containers"] {
                assert!(!instance.guard.exec_root().join(folder).exists(), "{version:?}: {folder}");
            }
        }
    }

    /// Figures against `facts/crates.md` S1; run by name with `--ignored --nocapture`.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "a measurement"]
    async fn measure() {
        for version in ALL {
            let Some(instance) = Instance::start(version).await else { continue };
            let bench = bench(&instance);
            eprintln!("{version:?} with {}", instance.containerd.info().default_runtime);
            let mut times: [Vec<Duration>; 6] = Default::default();
            for _ in 0..30 {
                let started = std::time::Instant::now();
                let mut marks = vec![];
                let id = bench.container().await;
                marks.push(started.elapsed());
                let spec = bench.spec(&id, &["true"], Stdio::default());
                let (_, _streams) = instance.containerd.create_task(&id, &spec, Stdio::default()).await.unwrap();
                marks.push(started.elapsed());
                instance.containerd.start_task(&id).await.unwrap();
                marks.push(started.elapsed());
                bench.exit(&id, None).await;
                marks.push(started.elapsed());
                instance.containerd.delete_task(&id).await.unwrap();
                marks.push(started.elapsed());
                instance.containerd.delete_container(&id).await.unwrap();
                marks.push(started.elapsed());
                let mut last = Duration::ZERO;
                for (times, mark) in times.iter_mut().zip(marks) {
                    times.push(mark - last);
                    last = mark;
                }
            }
            let names = ["create container", "create task", "start", "wait", "delete task", "delete container"];
            for (name, mut times) in names.into_iter().zip(times) {
                times.sort();
                eprintln!("{version:?} {name}: {:?}", times[times.len() / 2]);
            }
            let (id, _streams) = bench.run_new(&["sleep", "1000"], Stdio::default()).await;
            let mut times = vec![];
            for _ in 0..30 {
                let started = std::time::Instant::now();
                let exec = ExecId::random();
                let process = exec_process(&["true"], Stdio::default());
                let streams = instance.containerd.create_exec(&id, &exec, &process, Stdio::default()).await.unwrap();
                instance.containerd.start_exec(&id, &exec).await.unwrap();
                read_all(streams).await;
                bench.exit(&id, Some(&exec)).await;
                instance.containerd.delete_exec(&id, &exec).await.unwrap();
                times.push(started.elapsed());
            }
            times.sort();
            eprintln!("{version:?} exec of true: {:?}", times[15]);
            bench.remove(&id).await;
        }
    }
}
