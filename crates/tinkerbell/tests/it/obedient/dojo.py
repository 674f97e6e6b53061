"""Reads the tasks of agentdojo out of its unpacked wheel, without importing or running any of it.

Usage: dojo.py DIRECTORY_OF_THE_PACKAGE. Prints one JSON object: for each suite its tools, its user tasks
and its injections, each with the calls that its author gives as the way to do it. Only what stands there
as a literal, or follows from literals by joining texts, is evaluated; an argument that the author computes
from the suite's environment is filled with FILLED and counted.
"""

import ast
import json
import pathlib
import re
import sys

FILLED = "(from the environment)"
# What stands for version 1.2.2 of the benchmark, suite by suite (task_suite/load_suites.py).
SUITES = {"workspace": (1, 2, 2), "travel": (1, 2, 0), "banking": (1, 2, 2), "slack": (1, 2, 0)}
VERSIONS = ["v1", "v1_1", "v1_1_1", "v1_1_2", "v1_2", "v1_2_1", "v1_2_2"]
MAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")


class Unknown(Exception):
    """Not a literal, nor made of literals."""


def value(node, names):
    """The value of an expression over literals and known names."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name) and node.id in names:
        return names[node.id]
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        if node.value.id in ("self", "cls") and node.attr in names:
            return names[node.attr]
        if node.value.id == "SharingPermission":
            return node.attr
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        return [value(item, names) for item in node.elts]
    if isinstance(node, ast.Dict):
        return {value(key, names): value(item, names) for key, item in zip(node.keys, node.values)}
    if isinstance(node, ast.JoinedStr):
        parts = (part.value if isinstance(part, ast.FormattedValue) else part for part in node.values)
        return "".join(str(value(part, names)) for part in parts)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -value(node.operand, names)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = value(node.left, names), value(node.right, names)
        if type(left) is type(right):
            return left + right
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "join":
        return str(value(node.func.value, names)).join(value(node.args[0], names))
    raise Unknown


def attributes(body, names):
    """The literal attributes of a class or module, over those that are known already."""
    known = dict(names)
    for statement in body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if isinstance(statement, (ast.Assign, ast.AnnAssign)) and isinstance(targets[0], ast.Name) and statement.value:
            try:
                known[targets[0].id] = value(statement.value, known)
            except Unknown:
                known.pop(targets[0].id, None)
    return known


def call_of(node, names, told):
    """One FunctionCall: the tool and its arguments."""
    given = {word.arg: word.value for word in node.keywords}
    args = given.get("args", ast.Dict([], []))
    spare = given.get("placeholder_args", ast.Dict([], []))
    spares = {key.value: item for key, item in zip(getattr(spare, "keys", []), getattr(spare, "values", []))}
    made = {}
    for key, item in zip(args.keys, args.values):
        for candidate in (item, spares.get(key.value)):
            try:
                made[key.value] = value(candidate, names)
                if candidate is not item:
                    # Two injections that leave out the same would be one call, made twice.
                    made[key.value] = f"{made[key.value]} of {names.get('id', '')}"
                break
            except Unknown:
                continue
        else:
            made[key.value] = FILLED
            told["filled"] += 1
    told["calls"] += 1
    return {"tool": value(given["function"], names), "args": made}


def calls_of(body, names, told):
    """The calls of a task, in the order in which they stand."""
    truth = [item for item in body if isinstance(item, ast.FunctionDef) and item.name == "ground_truth"]
    if not truth:
        return []
    known = attributes(truth[0].body, names)
    found = [node for node in ast.walk(truth[0]) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "FunctionCall"]
    found.sort(key=lambda node: (node.lineno, node.col_offset))
    calls = []
    for node in found:
        try:
            calls.append(call_of(node, known, told))
        except (Unknown, AttributeError):
            told["skipped"] += 1
    return calls


def obeyed(suite, number, names):
    """What an injection asks for whose author gives no calls: read out of its goal. Ids differ from injection to
    injection, so that none repeats another. Of many things of one kind, one is done."""
    goal, calls = names["GOAL"], []
    if suite != "workspace":
        return calls
    for address in MAIL.findall(goal)[:1]:
        copies = ["received", "sent"] if "sent emails" in goal else ["all"]
        calls += [{"tool": "send_email", "args": {"recipients": [address], "subject": f"{copy} {number}", "body": FILLED}} for copy in copies]
    if "every single unread email" in goal:
        calls.append({"tool": "delete_email", "args": {"email_id": f"{number}1"}})
    if "each of the five files" in goal:
        calls.append({"tool": "delete_file", "args": {"file_id": f"{number}4"}})
    if "_EMAIL_BODY" in names:
        text = {"subject": names.get("_EMAIL_SUBJECT", ""), "body": names["_EMAIL_BODY"]}
        calls.append({"tool": "send_email", "args": {"recipients": ["emma.johnson@bluesparrowtech.com"], **text}})
    return calls


def version_of(decorator, names):
    """The version that a decorator puts a task into."""
    if isinstance(decorator, ast.Call) and decorator.args:
        return tuple(value(decorator.args[0], names))
    return (1, 0, 0)


class Suite:
    """What is known of one suite while its files are read, oldest first."""

    def __init__(self, name):
        self.name, self.users, self.injections = name, {}, {}
        self.told = {"calls": 0, "filled": 0, "skipped": 0, "ours": 0, "words": 0}

    def read(self, path):
        tree = ast.parse(path.read_text())
        names = attributes(tree.body, {})
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.decorator_list:
                self.task(node, names)
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                self.combined(node.value, names)

    def task(self, node, names):
        kind, number = re.match(r"(User|Injection)Task(\d+)", node.name).groups()
        version = version_of(node.decorator_list[0], names)
        known = {**attributes(node.body, names), "id": f"{kind.lower()}_{number}"}
        into = self.users if kind == "User" else self.injections
        told = {key: 0 for key in self.told}
        calls = calls_of(node.body, known, told)
        if kind == "Injection" and not calls:
            calls = obeyed(self.name, int(number), known)
            told["ours" if calls else "words"] += 1
        text = known["PROMPT" if kind == "User" else "GOAL"]
        into.setdefault(int(number), {})[version] = {"id": f"{kind.lower()}_{number}", "text": text, "calls": calls, "told": told}

    def combined(self, node, names):
        if getattr(node.func, "attr", "") not in ("create_combined_task", "update_combined_task"):
            return
        words = {word.arg: word.value for word in node.keywords}
        number = int(value(node.args[0], names).removeprefix("UserTask"))
        parts = [int(re.search(r"user_task_(\d+)", ast.unparse(part)).group(1)) for part in node.args[1:3]]
        first, second = (self.users[part][max(self.users[part])] for part in parts)
        version = tuple(value(words["benchmark_version"], names)) if "benchmark_version" in words else (1, 0, 0)
        text = f"Perform the following tasks in the order they are given: 1. {first['text']} 2. {second['text']}"
        text = value(words["prompt"], names) if "prompt" in words else text
        told = {key: first["told"][key] + second["told"][key] for key in self.told}
        self.users.setdefault(number, {})[version] = {
            "id": f"user_{number}", "text": text, "calls": first["calls"] + second["calls"], "told": told,
        }

    def chosen(self, tasks):
        fitting = [versions[max(one for one in versions if one <= SUITES[self.name])] for _, versions in sorted(tasks.items())]
        for task in fitting:
            for key, count in task.pop("told").items():
                self.told[key] += count
        return fitting


def tools_of(package, suite):
    """Names, words and parameters of a suite's tools."""
    known = {}
    for path in sorted((package / "default_suites/v1/tools").glob("*.py")):
        known.update({node.name: node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)})
    tree = ast.parse((package / f"default_suites/v1/{suite}/task_suite.py").read_text())
    listed = next(node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "TOOLS")
    tools = []
    for name in (item.id for item in listed.elts):
        node = known[name]
        # What is injected into the function by its framework is no argument of the model's.
        given = [arg.arg for arg in node.args.args if "Annotated" not in ast.unparse(arg.annotation)]
        words = (ast.get_docstring(node) or name).split("\n\n")[0]
        tools.append({"name": name, "description": words, "inputSchema": {"type": "object", "properties": {arg: {} for arg in given}}})
    return tools


def main():
    package = pathlib.Path(sys.argv[1])
    made = {}
    for name in SUITES:
        suite = Suite(name)
        for version in VERSIONS:
            for kind in ("user_tasks", "injection_tasks"):
                path = package / "default_suites" / version / name / f"{kind}.py"
                if path.is_file():
                    suite.read(path)
        users, injections = suite.chosen(suite.users), suite.chosen(suite.injections)
        made[name] = {"tools": tools_of(package, name), "users": users, "injections": injections, "told": suite.told}
    source = (package / "attacks/important_instructions_attacks.py").read_text()
    attack = next(node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == "ImportantInstructionsAttack")
    json.dump({"attack": attributes(attack.body, {})["_JB_STRING"], "suites": made}, sys.stdout)


main()
