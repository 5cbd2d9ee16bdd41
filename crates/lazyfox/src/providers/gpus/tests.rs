use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// What a machine with three GPUs says, the last of which fell off the bus.
const THREE: &str = "echo '1, GPU-bbbb, NVIDIA L4, 23034 MiB'
echo '0, GPU-aaaa, NVIDIA A100-SXM4-40GB, 40960 MiB'
echo '[GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost]'";

/// A machine whose `nvidia-smi` is this script.
struct Fake {
    dir: tempfile::TempDir,
    machine: Machine,
}

impl Fake {
    fn bare() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        fs::create_dir(&bin).unwrap();
        let path = std::env::join_paths([bin, "/usr/bin".into(), "/bin".into()]).unwrap();
        let machine = Machine {
            path,
            visible: None,
            driver: dir.path().join("gpus"),
        };
        Self { dir, machine }
    }

    fn with(script: &str) -> Self {
        let fake = Self::bare();
        let tool = fake.dir.path().join("bin/nvidia-smi");
        fs::write(&tool, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
        fake
    }

    /// What the driver itself says of a GPU.
    fn driver(&self, bus: &str, information: &str) {
        let dir = self.machine.driver.join(bus);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("information"), information).unwrap();
    }

    async fn look(&self, named: Option<&[&str]>) -> Inventory {
        let names = named.map(|names| names.iter().map(|&name| name.to_owned()).collect());
        let inventory = Inventory::new(names);
        inventory.look_at(&self.machine).await;
        inventory
    }
}

fn names(inventory: &Inventory) -> Vec<&str> {
    inventory.all().iter().map(|gpu| &*gpu.name).collect()
}

#[tokio::test]
async fn all_are_found_in_the_order_of_the_bus() {
    let fake = Fake::with(THREE);
    let inventory = fake.look(None).await;
    let first = Gpu {
        name: "0".to_owned(),
        index: Some(0),
        uuid: Some("GPU-aaaa".to_owned()),
        model: Some("NVIDIA A100-SXM4-40GB".to_owned()),
        memory_mib: Some(40_960),
    };
    assert_eq!(inventory.all()[0], first);
    assert_eq!(names(&inventory), ["0", "1"]);
}

#[tokio::test]
async fn the_tool_is_asked_for_what_is_read() {
    let fake = Fake::with("echo \"0, GPU-a, $*, 1 MiB\"");
    let inventory = fake.look(None).await;
    // The commas of the question make fields of their own.
    let model = inventory.all()[0].model.as_deref();
    assert_eq!(model, Some("--query-gpu=index"));
}

#[tokio::test]
async fn without_the_tool_or_with_one_that_fails_the_driver_is_read() {
    let information = "Model: \t\t NVIDIA L4\nIRQ:   \t\t 12\nGPU UUID: \t GPU-cccc\n";
    for fake in [Fake::bare(), Fake::with("echo no devices; exit 6")] {
        fake.driver("0000:c1:00.0", "");
        fake.driver("0000:41:00.0", information);
        let inventory = fake.look(None).await;
        assert_eq!(names(&inventory), ["0", "1"]);
        let first = &inventory.all()[0];
        assert_eq!(first.model.as_deref(), Some("NVIDIA L4"));
        assert_eq!(first.uuid.as_deref(), Some("GPU-cccc"));
        assert_eq!(inventory.all()[1].uuid, None);
    }
}

#[tokio::test]
async fn a_machine_without_any_has_none() {
    let inventory = Fake::bare().look(None).await;
    assert!(inventory.is_managed());
    assert_eq!(inventory.all(), []);
    assert_eq!(inventory.assign(1, [].into_iter()), None);
    assert_eq!(inventory.assign(0, [].into_iter()), Some(vec![]));
}

#[tokio::test]
async fn a_tool_that_hangs_is_given_up() {
    let fake = Fake::with("exec sleep 1000");
    fake.driver("0000:41:00.0", "");
    let looked = tokio::spawn(async move { names(&fake.look(None).await).len() });
    // The child must be there before the time is over: with the clock stopped it would be at once.
    tokio::task::yield_now().await;
    tokio::time::pause();
    tokio::time::advance(ASK_MAX).await;
    assert_eq!(looked.await.unwrap(), 1);
}

#[tokio::test]
async fn what_is_named_keeps_its_name_and_order() {
    let fake = Fake::with(THREE);
    let inventory = fake.look(Some(&["GPU-bbbb", "0", "MIG-x"])).await;
    assert_eq!(names(&inventory), ["GPU-bbbb", "0", "MIG-x"]);
    assert_eq!(inventory.all()[0].index, Some(1));
    assert_eq!(inventory.all()[2], Gpu::named("MIG-x"));
}

#[tokio::test]
async fn the_servers_own_share_is_all_that_there_is() {
    let mut fake = Fake::with(THREE);
    for (visible, expected) in [
        ("1", &["1"][..]),
        ("GPU-b,0", &["1", "0"]),
        ("1,7,0", &["1"]),
        ("", &[]),
        ("-1", &[]),
    ] {
        fake.machine.visible = Some(visible.to_owned());
        assert_eq!(names(&fake.look(None).await), expected, "{visible:?}");
    }
    assert_eq!(names(&fake.look(Some(&["0"])).await), ["0"]);
}

#[tokio::test]
async fn free_are_those_that_nobody_has_by_any_name() {
    let inventory = Fake::with(THREE).look(None).await;
    let free = |used: &[&'static str]| inventory.free(used.iter().copied());
    assert_eq!(free(&[]), ["0", "1"]);
    assert_eq!(free(&["0"]), ["1"]);
    assert_eq!(free(&["GPU-aaaa"]), ["1"]);
    assert_eq!(free(&["GPU-bb", "0", "gone"]), [""; 0]);
    let assign = |count, used: &[&'static str]| inventory.assign(count, used.iter().copied());
    assert_eq!(assign(1, &[]), Some(vec!["0".to_owned()]));
    assert_eq!(
        assign(2, &["9"]),
        Some(vec!["0".to_owned(), "1".to_owned()])
    );
    assert_eq!(assign(2, &["1"]), None);
    assert_eq!(assign(u32::MAX, &[]), None);
}

#[test]
fn nobody_looks_before_somebody_wants_one() {
    let inventory = Inventory::new(Some(vec!["0".to_owned()]));
    assert!(!inventory.is_managed());
    assert_eq!(inventory.free([].into_iter()), [""; 0]);
    let known = Inventory::known(&["3", "4"]);
    assert!(known.is_managed());
    assert_eq!(known.free(["3"].into_iter()), ["4"]);
}
