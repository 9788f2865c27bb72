//! Bad input gets one clear error and the documented exit code.

use crate::lab::Lab;

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_bad_input_has_its_exit_code() {
    let lab = Lab::new("input").await;
    let good = lab.task_text();
    let cases = [
        (good.replace("include", "includes"), 64, "includes"),
        (
            good.replace("[tables]", "[tables]\nexclude = [\"nodot\"]"),
            64,
            "nodot",
        ),
        (
            good.replace("[tables]", "ticdc = \"http://127.0.0.1:8300\"\n[tables]"),
            64,
            "ticdc wants changefeed",
        ),
        (
            good.replace("[tables]", "changefeed = \"shop\"\n[tables]"),
            64,
            "want ticdc",
        ),
        (
            good.replace("ROWPROOF_TEST_PASSWORD", "NO_SUCH_VARIABLE"),
            64,
            "NO_SUCH_VARIABLE",
        ),
        (
            good.replace("listen = \"127.0.0.1", "listen = \"0.0.0.0"),
            64,
            "not loopback",
        ),
        (
            good.replace(&format!("port = {}", lab.source_port()), "port = 1"),
            69,
            "TiDB at 127.0.0.1:1",
        ),
        (
            good.replace(&format!("port = {}", lab.target_port()), "port = 1"),
            69,
            "OceanBase at",
        ),
        (
            good.replace(crate::lab::USER, "nobody_at_all"),
            2,
            "access denied",
        ),
    ];
    for (text, code, word) in cases {
        lab.write_task(&text);
        let finished = lab.run(&["precheck"]);
        assert_eq!(finished.code, code, "{word}: {}", finished.stderr);
        assert!(
            finished.stderr.contains(word),
            "{word}: {}",
            finished.stderr
        );
        assert!(!finished.stderr.contains(crate::lab::PASSWORD));
    }
    assert_eq!(lab.run(&["nonsense"]).code, 64);
}
