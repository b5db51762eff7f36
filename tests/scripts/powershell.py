"""Looks at scripts of PowerShell: `powershell.py FILE…`. For each a line of JSON: the texts that `$Mailboxes` holds, and what is wrong.

Wrong is what does not parse, what Windows PowerShell 5.1 does not know, an octet that is not ASCII, a command that is neither the script's own
nor in KNOWN, and a parameter that its command does not have. KNOWN is from the public reference of PowerShell 5.1, Microsoft.Graph.Applications
2.x, Microsoft.Graph.Authentication 2.x and ExchangeOnlineManagement 3.x, of which nothing can be had here.
"""
import json
import sys

import tree_sitter
import tree_sitter_powershell

COMMON = {"ErrorAction", "Confirm", "WhatIf", "Verbose"}
KNOWN = {
    # PowerShell itself, and PowerShellGet
    "ForEach-Object": {"Process"},
    "Get-Module": {"ListAvailable", "Name"},
    "Import-Module": {"Name"},
    "Install-Module": {"Name", "Repository", "Scope"},
    "Read-Host": {"Prompt"},
    "Select-Object": {"First"},
    "Start-Sleep": {"Seconds"},
    "Where-Object": {"FilterScript"},
    "Write-Host": {"Object"},
    "Write-Output": {"InputObject"},
    # Microsoft.Graph.Authentication
    "Connect-MgGraph": {"Scopes", "TenantId", "Environment", "ContextScope", "NoWelcome"},
    "Get-MgContext": set(),
    # Microsoft.Graph.Applications
    "Get-MgApplication": {"ApplicationId", "Filter", "All", "Property"},
    "Get-MgServicePrincipal": {"ServicePrincipalId", "Filter", "All", "Property"},
    "Get-MgServicePrincipalAppRoleAssignment": {"ServicePrincipalId", "All"},
    "New-MgApplication": {"DisplayName", "SignInAudience", "KeyCredentials", "Tags"},
    "New-MgServicePrincipal": {"AppId"},
    "New-MgServicePrincipalAppRoleAssignment": {"ServicePrincipalId", "PrincipalId", "ResourceId", "AppRoleId"},
    "Remove-MgApplication": {"ApplicationId"},
    "Update-MgApplication": {"ApplicationId", "KeyCredentials"},
    # ExchangeOnlineManagement
    "Connect-ExchangeOnline": {"ExchangeEnvironmentName", "ShowBanner"},
    "Get-BlockedSenderAddress": {"SenderAddress"},
    "Get-Mailbox": {"Identity"},
    "Get-MailboxStatistics": {"Identity"},
    "Get-ManagementRoleAssignment": {"Identity", "Role"},
    "Get-ManagementScope": {"Identity"},
    "Get-ServicePrincipal": {"Identity"},
    "New-ManagementRoleAssignment": {"Name", "App", "Role", "CustomResourceScope"},
    "New-ManagementScope": {"Name", "RecipientRestrictionFilter"},
    "New-ServicePrincipal": {"AppId", "ObjectId", "DisplayName"},
    "Remove-ManagementRoleAssignment": {"Identity"},
    "Remove-ManagementScope": {"Identity"},
    "Remove-ServicePrincipal": {"Identity"},
    "Set-ManagementScope": {"Identity", "RecipientRestrictionFilter"},
    "Test-ServicePrincipalAuthorization": {"Identity", "Resource"},
}
# What changes something: it stands in a block that is not entered with -WhatIf.
CHANGES = ("New-", "Remove-", "Set-", "Update-")
# Since PowerShell 7.
LATER = {"&&", "||", "??", "??=", "?.", "?["}

parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_powershell.language()))


def text(node):
    return node.text.decode()


def every(node):
    yield node
    for child in node.children:
        yield from every(child)


def name_of(command):
    found = [child for child in command.children if child.type == "command_name"]
    return text(found[0]) if found else None


def is_guarded(node):
    """Whether it stands in the block of an Invoke-Step."""
    while node is not None:
        if node.type == "command" and name_of(node) == "Invoke-Step":
            return True
        node = node.parent
    return False


def look(source):
    wrong = []
    try:
        source.decode("ascii")
    except UnicodeDecodeError as why:
        wrong.append(str(why))
    root = parser.parse(source).root_node
    nodes = list(every(root))
    own = {text(child) for node in nodes if node.type == "function_statement" for child in node.children if child.type == "function_name"}
    mailboxes = []
    for node in nodes:
        place = f"line {node.start_point[0] + 1}: "
        if node.type == "ERROR" or node.is_missing:
            wrong.append(place + "does not parse: " + text(node)[:60])
        if not node.children and text(node) in LATER:
            wrong.append(place + "not in Windows PowerShell 5.1: " + text(node))
        if node.type == "assignment_expression" and text(node).startswith("$Mailboxes ="):
            strings = [text(one) for one in every(node) if one.type == "verbatim_string_characters"]
            mailboxes += [one[1:-1].replace("''", "'") for one in strings]
        if node.type != "command":
            continue
        name = name_of(node)
        if name is None or name in own or name.startswith("$"):
            continue
        if name not in KNOWN:
            wrong.append(place + "unknown command " + name)
            continue
        given = [text(one) for child in node.children if child.type == "command_elements" for one in child.children if one.type == "command_parameter"]
        for parameter in given:
            parameter = parameter[1:].rstrip(":")
            if parameter not in KNOWN[name] | COMMON:
                wrong.append(place + f"{name} has no parameter {parameter}")
        is_of_a_module = not KNOWN[name] <= {"Object", "InputObject"} and "-Mg" in name or name.split("-")[1] in (
            "ServicePrincipal", "ManagementScope", "ManagementRoleAssignment")
        if name.startswith(CHANGES) and is_of_a_module and not is_guarded(node):
            wrong.append(place + name + " changes something, and is not held back by -WhatIf")
        # What the caller prefers does not reach into modules.
        if is_of_a_module and name != "Get-MgContext" and "-ErrorAction" not in given:
            wrong.append(place + name + " would go on after an error")
    return {"mailboxes": mailboxes, "wrong": wrong, "commands": sum(node.type == "command" for node in nodes)}


for path in sys.argv[1:]:
    with open(path, "rb") as file:
        print(json.dumps(look(file.read())))
