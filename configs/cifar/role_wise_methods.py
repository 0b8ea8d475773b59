"""Ways of teaching a low-bit student, each with the policy that was learnt with it.

Claim     II-KD teaches best: ResNet-18 on CIFAR-100 at 4 bits soft labels 70.48, DML 72.47, RKD
          71.84, MHGD 73.52, KD-SVD 73.92, II-KD 74.21 % (role_wise_kd, Table 1); for DML, MHGD and
          II-KD a policy of the student's own beats the teacher's (Table 3)
Command   python -m launch.study --data_dir=DIR --workdir=runs/role_wise_methods --config=\\
              configs/cifar/role_wise_methods.py:bits=4
Cost      not measured
Measured  not measured
Args      scale=full|small|tiny, bits=4|2, network=resnet18|alexnet (of scale=full),
          dataset=cifar100|cifar10

search_teacher, teacher   stage alpha, as in role_wise.py
search_METHOD             PBA with the student and this method's help, on the data set's own images
METHOD                    under what was found, taught so: soft, dml, rkd, mhgd, kd_svd, ii_kd
control_METHOD            under the teacher's policy, taught so; of dml, mhgd and ii_kd

Of DML the teacher learns on beside its student (spec D8). Tables 1 and 3 agree where they share a
row, so the numbers of Table 1 are with a policy of the student's own, too.
"""

from ml_collections import ConfigDict

from augjax import defaults, role_wise

METHODS = tuple(role_wise.TAUGHT)
CONTROLLED = ("dml", "mhgd", "ii_kd")
ONE, THREE = "role_wise_kd, Table 1", "role_wise_kd, Table 3"
PUBLISHED = {  # of METHODS, ResNet-18 on CIFAR-100
    4: (70.48, 72.47, 71.84, 73.52, 73.92, 74.21), 2: (70.09, 69.72, 70.71, 71.80, 72.97, 73.35)}
AT_FOUR = {  # Table 3, CIFAR-100, 4 bits, of CONTROLLED: the student's own policy, the teacher's
    "resnet18": ((72.47, 73.52, 74.21), (71.78, 69.76, 73.46)),
    "alexnet": ((63.73, 63.47, 65.69), (61.61, 61.62, 64.97))}
TAPS = ("f1", "f2", "f3", "f4")
WORDS = {"scale": tuple(role_wise.SCALES), "bits": ("4", "2"),
         "network": tuple(role_wise.NETWORKS), "dataset": ("cifar100", "cifar10")}


def get_config(arg: str = "") -> ConfigDict:
    words = defaults.chosen(arg, WORDS)
    name, network, bits = words["scale"], words["network"], int(words["bits"])
    setting = role_wise.Setting(
        role_wise.SCALES[name], words["dataset"], TAPS if name == "full" else TAPS[:3])
    model = role_wise.TOYS.get(name, role_wise.NETWORKS[network])
    once = ("search_teacher", "teacher", *(f"search_{method}" for method in METHODS))
    known = name == "full" and words["dataset"] == "cifar100"
    return defaults.study(
        f"Ways of teaching {model} of {bits} bits on {words['dataset']}",
        rows(setting, model, bits),
        claim=__doc__.split("Command")[0].split("Claim")[1].strip(),
        scale=name, seeds=(0,) if name == "tiny" else (0, 1, 2),
        seeds_of={} if name == "tiny" else dict.fromkeys(once, (0,)),
        data_note="the JPEG copy, where it is that",
        published=published(network, bits) if known else {},
        comparisons=tuple(defaults.comparison(says, table) for says, table in (
            *((f"ii_kd > {other}", ONE) for other in METHODS if other != "ii_kd"),
            *((f"{method} > control_{method}", THREE) for method in CONTROLLED))))


def rows(setting: role_wise.Setting, model: str, bits: int) -> dict[str, ConfigDict]:
    """{row: its training or search}, in the order of need."""
    found = role_wise.replayed(setting, "search_teacher")

    def low_bit(views, method):
        return role_wise.low_bit(setting, model, bits, views, "row:teacher", method)

    stages = {
        "search_teacher": role_wise.search(setting, role_wise.whole(
            setting, model, role_wise.searched(), searching=True), "cifar10"),
        "teacher": role_wise.train(setting, student=role_wise.whole(setting, model, found)),
    }
    for method in METHODS:
        stages[f"search_{method}"] = role_wise.low_bit_search(setting, model, bits, method)
        stages[method] = low_bit(role_wise.replayed(setting, f"search_{method}"), method)
    return stages | {f"control_{method}": low_bit(found, method) for method in CONTROLLED}


def published(network: str, bits: int) -> dict[str, ConfigDict]:
    told = {method: defaults.published(top1, ONE)
            for method, top1 in zip(METHODS, PUBLISHED[bits])} if network == "resnet18" else {}
    if bits == 4:
        own, teachers = AT_FOUR[network]
        told |= {method: defaults.published(top1, THREE) for method, top1 in zip(CONTROLLED, own)}
        told |= {f"control_{method}": defaults.published(top1, THREE)
                 for method, top1 in zip(CONTROLLED, teachers)}
    return told
