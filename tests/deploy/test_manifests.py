"""The manifests are valid for every Kubernetes that knows sidecars, say what they mean, and agree with the program."""

import copy
import re
import unittest

import jsonschema
import kubernetes_validate
import yaml

import image
import manifests

# From the first in which a sidecar works without asking for it to the newest that the validator knows.
VERSIONS = [f"1.{minor}" for minor in range(29, 38)]
KINDS = {"Secret", "ConfigMap", "Deployment", "PodMonitor", "NetworkPolicy"}


TEXTS = {"type": "object", "minProperties": 1, "additionalProperties": {"type": "string"}}

# What of a PodMonitor is used here; nothing else may be written.
POD_MONITOR = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "monitoring.coreos.com/v1"},
        "kind": {"const": "PodMonitor"},
        "metadata": {"type": "object", "required": ["name"], "additionalProperties": False,
                     "properties": {"name": {"pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"}, "labels": TEXTS}},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["selector", "podMetricsEndpoints"],
            "properties": {
                "selector": {"type": "object", "required": ["matchLabels"], "additionalProperties": False,
                             "properties": {"matchLabels": TEXTS}},
                "podMetricsEndpoints": {
                    "type": "array",
                    "minItems": 1,
                    "items": {"type": "object", "required": ["port"], "additionalProperties": False,
                              "properties": {"port": {"type": "string"}, "path": {"pattern": "^/"},
                                             "interval": {"pattern": "^[1-9][0-9]*(ms|s|m|h)$"}}},
                },
            },
        },
    },
}


def restricted(pod):
    """What the Pod Security standard `restricted` has against this pod; the words are its fields."""
    found = []
    whole = pod.get("securityContext", {})
    if any(pod.get(field) for field in ("hostNetwork", "hostPID", "hostIPC")):
        found.append("host namespaces")
    # Of the volumes that it allows, those that are used here.
    found += [f"volume {volume['name']}" for volume in pod["volumes"] if set(volume) - {"name", "configMap", "secret", "emptyDir"}]
    for container in pod["initContainers"] + pod["containers"]:
        own = container.get("securityContext", {})
        wrong = {
            "runAsNonRoot": own.get("runAsNonRoot", whole.get("runAsNonRoot")) is not True,
            "runAsUser": own.get("runAsUser", whole.get("runAsUser")) == 0,
            "seccompProfile": own.get("seccompProfile", whole.get("seccompProfile", {})).get("type") not in ("RuntimeDefault", "Localhost"),
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is not False,
            "privileged": own.get("privileged", False),
            "drop": "ALL" not in own.get("capabilities", {}).get("drop", []),
            "add": set(own.get("capabilities", {}).get("add", [])) - {"NET_BIND_SERVICE"},
            "hostPort": any("hostPort" in port for port in container.get("ports", [])),
            # Not in the standard, and wanted here.
            "readOnlyRootFilesystem": own.get("readOnlyRootFilesystem") is not True,
        }
        found += [f"{container['name']}: {field}" for field, is_so in wrong.items() if is_so]
    return found


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(s|m)", text).groups()
    return int(number) * {"s": 1, "m": 60}[unit]


class Schemas(unittest.TestCase):
    def test_every_document_is_valid_for_every_version(self):
        documents = manifests.documents()
        self.assertEqual(set(documents), KINDS)
        for kind in KINDS - {"PodMonitor"}:
            for version in VERSIONS:
                with self.subTest(kind=kind, version=version):
                    self.assertEqual(kubernetes_validate.validate(documents[kind], version, strict=True), version)
        jsonschema.validate(documents["PodMonitor"], POD_MONITOR)

    def test_a_slip_of_the_pen_is_not(self):
        def misspell(document, at, right, wrong):
            document = copy.deepcopy(document)
            place = document
            for step in at:
                place = place[step]
            place[wrong] = place.pop(right)
            return document
        pod = ["spec", "template", "spec"]
        slips = [
            ("Deployment", pod + ["initContainers", 0], "livenessProbe", "livenesProbe"),
            ("Deployment", pod + ["initContainers", 0], "terminationMessagePolicy", "terminationMesagePolicy"),
            ("Deployment", pod + ["initContainers", 0], "restartPolicy", "restart"),
            ("Deployment", pod + ["securityContext"], "fsGroup", "fsgroup"),
            ("Deployment", pod + ["containers", 0, "securityContext"], "capabilities", "capability"),
            ("Deployment", pod, "terminationGracePeriodSeconds", "terminationGracePeriod"),
            ("ConfigMap", [], "data", "datas"),
            ("Secret", [], "stringData", "stringdata"),
            ("NetworkPolicy", ["spec", "ingress", 0], "from", "form"),
        ]
        documents = manifests.documents()
        for kind, at, right, wrong in slips:
            for version in (VERSIONS[0], VERSIONS[-1]):
                with self.subTest(wrong=wrong, version=version), self.assertRaises(kubernetes_validate.ValidationError):
                    kubernetes_validate.validate(misspell(documents[kind], at, right, wrong), version, strict=True)
        for at, right, wrong in [(["spec"], "selector", "select"), (["spec", "podMetricsEndpoints", 0], "path", "paths")]:
            with self.subTest(wrong=wrong), self.assertRaises(jsonschema.ValidationError):
                jsonschema.validate(misspell(documents["PodMonitor"], at, right, wrong), POD_MONITOR)

    def test_a_version_without_sidecars_refuses_this_one(self):
        with self.assertRaises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(manifests.documents()["Deployment"], "1.27", strict=True)


class Security(unittest.TestCase):
    def test_the_restricted_profile_is_kept(self):
        self.assertEqual(restricted(manifests.pod()), [])
        self.assertIs(manifests.pod()["automountServiceAccountToken"], False)

    def test_whatever_is_left_out_of_it_is_missed(self):
        def without(change):
            pod = manifests.pod()
            change(pod)
            return restricted(pod)
        for field in ("runAsNonRoot", "seccompProfile"):
            self.assertEqual(without(lambda pod: pod["securityContext"].pop(field)), [f"bearerd: {field}", f"app: {field}"])
        for kind, name in (("initContainers", "bearerd"), ("containers", "app")):
            for field, told in (("allowPrivilegeEscalation",) * 2, ("readOnlyRootFilesystem",) * 2, ("capabilities", "drop")):
                self.assertEqual(without(lambda pod: pod[kind][0]["securityContext"].pop(field)), [f"{name}: {told}"])
        self.assertEqual(without(lambda pod: pod["volumes"].append({"name": "host", "hostPath": {"path": "/"}})), ["volume host"])

    def test_the_user_is_the_images_and_both_containers_share_it(self):
        whole = manifests.pod()["securityContext"]
        self.assertEqual({whole[field] for field in ("runAsUser", "runAsGroup", "fsGroup")}, {image.USER})
        for container in manifests.pod()["initContainers"] + manifests.pod()["containers"]:
            self.assertNotIn("runAsUser", container["securityContext"])

    def test_the_app_sees_neither_keys_nor_record(self):
        mounted = [mount["name"] for container in manifests.pod()["containers"] for mount in container["volumeMounts"]]
        self.assertEqual(mounted, ["socket"])


class Agreement(unittest.TestCase):
    """What is written in two places is the same."""

    def test_every_path_of_the_settings_is_mounted(self):
        pod, written = manifests.pod(), manifests.settings()
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in manifests.sidecar()["volumeMounts"]}
        self.assertEqual(mounts["/etc/bearerd"]["configMap"]["name"], manifests.documents()["ConfigMap"]["metadata"]["name"])
        secret = manifests.documents()["Secret"]
        for pair in written["upstream"]["keys"]:
            for path in pair.values():
                folder, name = path.rsplit("/", 1)
                self.assertEqual(mounts[folder]["secret"]["secretName"], secret["metadata"]["name"])
                self.assertIn(name, secret["stringData"])
        sockets = [path.removeprefix("unix:") for path in written["http"]["listen"] if path.startswith("unix:")]
        for path in [written["record"]["file"]["folder"], *(path.rsplit("/", 1)[0] for path in sockets)]:
            self.assertEqual(mounts[path]["emptyDir"]["medium"], "Memory")
        app = pod["containers"][0]
        self.assertIn(f"--unix-socket {sockets[0]} ", app["args"][0])
        self.assertIn({"name": "socket", "mountPath": sockets[0].rsplit("/", 1)[0], "readOnly": True}, app["volumeMounts"])

    def test_probes_and_prometheus_ask_where_the_daemon_listens(self):
        documents, sidecar = manifests.documents(), manifests.sidecar()
        ports = {port["name"]: port["containerPort"] for port in sidecar["ports"]}
        [listen] = manifests.settings()["admin"]["listen"]
        host, port = listen.rsplit(":", 1)
        self.assertEqual(host, "0.0.0.0", "loopback does not hear probes")
        asked = [probe["httpGet"]["port"] for probe in manifests.probes().values()]
        asked += [endpoint["port"] for endpoint in documents["PodMonitor"]["spec"]["podMetricsEndpoints"]]
        for name in asked:
            self.assertEqual(ports[name], int(port))
            self.assertLessEqual(len(name), 15)
        self.assertNotIn("readinessProbe", sidecar)
        self.assertEqual(sidecar["restartPolicy"], "Always")
        [rule] = documents["NetworkPolicy"]["spec"]["ingress"]
        self.assertEqual(rule["ports"], [{"port": int(port)}])
        labels = documents["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
        for selector in (documents["Deployment"]["spec"]["selector"], documents["PodMonitor"]["spec"]["selector"],
                         documents["NetworkPolicy"]["spec"]["podSelector"]):
            self.assertLessEqual(selector["matchLabels"].items(), labels)

    def test_waits_are_longer_than_what_they_wait_for(self):
        written, probes, pod = manifests.settings(), manifests.probes(), manifests.pod()
        grace = seconds(written["admin"]["startup_grace"])
        self.assertGreater(probes["startup"]["periodSeconds"] * probes["startup"]["failureThreshold"], grace * 2)
        deadline = seconds(written["shutdown"]["deadline"])
        self.assertGreater(pod["terminationGracePeriodSeconds"], deadline + 2 + 10, "the app needs time too")

        # A hung one is ended sooner than the pod, and a sound one may still drain.
        hung = probes["liveness"]["terminationGracePeriodSeconds"]
        self.assertGreater(hung, deadline)
        self.assertLess(hung, pod["terminationGracePeriodSeconds"])

    def test_connections_fit_the_memory(self):
        limit = re.fullmatch(r"(\d+)Mi", manifests.sidecar()["resources"]["limits"]["memory"])[1]
        taken = 16 + manifests.settings()["limits"]["connections"] * 24.6 / 1024
        self.assertLess(taken, int(limit) * 3 / 4)
        self.assertIn("24.6 KiB", (manifests.FOLDER / "sidecar.yaml").read_text())

    def test_what_is_applied_holds_no_placeholder_of_a_key(self):
        kinds = [document["kind"] for path in manifests.FOLDER.glob("*.yaml") for document in yaml.safe_load_all(path.read_text())]
        self.assertNotIn("Secret", kinds)
        self.assertEqual(manifests.sidecar()["terminationMessagePolicy"], "FallbackToLogsOnError")

    def test_the_budget_is_shared_among_the_pods(self):
        spec = manifests.documents()["Deployment"]["spec"]
        self.assertEqual(spec["strategy"], {"type": "Recreate"})
        replaced = 1
        self.assertEqual(manifests.settings()["budget"]["limit"], 10 // (spec["replicas"] + replaced))

    def test_images_are_pinned(self):
        for container in manifests.pod()["initContainers"] + manifests.pod()["containers"]:
            self.assertRegex(container["image"], r":\d+\.\d+\.\d+$")
        version = re.search(r'^version = "(.+)"$', (image.REPOSITORY / "Cargo.toml").read_text(), re.M)[1]
        self.assertTrue(manifests.sidecar()["image"].endswith(f"bearerd:{version}"))
        self.assertIn(f"-t bearerd:{version} .", image.CONTAINERFILE.read_text())
