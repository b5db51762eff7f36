# Makes the application with which Postern on @HOST@ sends mail through Exchange Online, or finds that it is there: it may
# run as often as you like. There is no secret in this file: the certificate is for everybody to see, and its key has not
# left the gateway. For Windows PowerShell 5.1 and PowerShell 7.
#
#   powershell -ExecutionPolicy Bypass -File .\@FILE@            does it
#   powershell -ExecutionPolicy Bypass -File .\@FILE@ -WhatIf    says what it would do, and changes nothing
#   powershell -ExecutionPolicy Bypass -File .\@FILE@ -Undo      removes what it has made
#
# Whoever runs it is asked to log in, and needs these roles: @ROLES@.
# Each step is a line that begins with ok, or with FAILED and its reason, and then it ends. At its end it prints three lines,
# which belong back to the gateway.

[CmdletBinding(SupportsShouldProcess = $true)]
param(
    [switch] $Undo
)

$ErrorActionPreference = 'Stop'
$Caller = $PSCmdlet

$Name = @NAME@
$Mailboxes = @(@MAILBOXES@)
$Large = @LARGE@
$EveryMailbox = @EVERY@
$GraphEnvironment = @GRAPH@
$ExchangeEnvironment = @EXCHANGE@
$KeyName = @KEYNAME@
# What tells this application from another of the same name.
$Tag = @TAG@
$MailboxLine = @LINE@
$Certificate = @(
@CERTIFICATE@
) -join ''

$GraphAppId = '00000003-0000-0000-c000-000000000000'
$NeedsExchange = (-not $EveryMailbox) -or ($Mailboxes.Count -gt 0)
$Roles = @('Application Mail.Send')
$Permissions = @(@{ Name = 'Mail.Send'; Id = 'b633e1c5-b582-4048-a93e-9f11b44c7e96' })
if ($Large) {
    $Roles += 'Application Mail.ReadWrite'
    $Permissions += @{ Name = 'Mail.ReadWrite'; Id = 'e2a3a72e-5f79-4c64-b1b1-878b674786c9' }
}

function Write-Step([string] $State, [string] $Text) {
    Write-Host ('{0,-7} {1}' -f $State, $Text)
}

# Does what changes something, unless it was asked only what would be done.
function Invoke-Step([string] $What, [scriptblock] $Action) {
    if ($Caller.ShouldProcess($What)) {
        & $Action
        Write-Step 'ok' $What
    }
}

# What was made a moment ago is not known everywhere at once: a minute and a half, with the first reason on the screen.
function Invoke-Patiently([scriptblock] $Action) {
    for ($Try = 1; $Try -lt 18; $Try++) {
        try {
            return (& $Action)
        }
        catch {
            if ($Try -eq 1) {
                Write-Step 'wait' ('{0}: {1}' -f $script:Step, $_.Exception.Message)
            }
            Start-Sleep -Seconds 5
        }
    }
    & $Action
}

function Import-Needed([string] $Module) {
    if (-not (Get-Module -ListAvailable -Name $Module)) {
        if ($WhatIfPreference) {
            throw ('the module {0} is not installed, and with -WhatIf nothing is' -f $Module)
        }
        $Answer = Read-Host ('The module {0} is not installed. Install it from the PowerShell Gallery, for this user? [y/N]' -f $Module)
        if ($Answer -notmatch '^[yY]') {
            throw ('the module {0} is not installed' -f $Module)
        }
        # The Gallery takes nothing older, and Windows PowerShell may begin with less.
        [Net.ServicePointManager]::SecurityProtocol = [Net.ServicePointManager]::SecurityProtocol -bor [Net.SecurityProtocolType]::Tls12
        Install-Module -Name $Module -Repository PSGallery -Scope CurrentUser -ErrorAction Stop
    }
    Import-Module -Name $Module -ErrorAction Stop
}

function Find-Application {
    $Filter = "displayName eq '" + $Name.Replace("'", "''") + "'"
    $Named = @(Get-MgApplication -Filter $Filter -All -ErrorAction Stop)
    $Ours = @($Named | Where-Object { $_.Tags -contains $Tag })
    if ($Ours.Count -gt 0) {
        return $Ours[0]
    }
    if ($Named.Count -gt 0) {
        throw ('there is an application of the name "{0}" that this script has not made: rename it, or name its client ID to postern setup' -f $Name)
    }
}

# The number of octets in "1.5 GB (1,610,612,736 bytes)", or nothing.
function Get-Octets($Size) {
    if ("$Size" -match '\(([^)]*) bytes\)') {
        return [decimal] ($Matches[1] -replace '[^0-9]', '')
    }
}

function Test-OneMailbox([string] $Mailbox) {
    $Found = Get-Mailbox -Identity $Mailbox -ErrorAction Stop
    if ("$($Found.PrimarySmtpAddress)" -ne $Mailbox) {
        throw ('this is another address of the mailbox {0}: name that one to postern setup' -f $Found.PrimarySmtpAddress)
    }
    $Kind = "$($Found.RecipientTypeDetails)"
    if ($Kind -notmatch 'Mailbox$') {
        throw ('this is no mailbox, but a {0}' -f $Kind)
    }
    if (($Kind -eq 'UserMailbox') -and ($Found.SkuAssigned -eq $false)) {
        throw 'this mailbox of a person has no licence'
    }
    $Blocked = $null
    try {
        $Blocked = Get-BlockedSenderAddress -SenderAddress $Mailbox -ErrorAction Stop
    }
    catch {
        Write-Step 'note' ('mailbox {0}: whether it is blocked from sending could not be seen ({1})' -f $Mailbox, $_.Exception.Message)
    }
    if ($Blocked) {
        throw 'it is blocked from sending: Microsoft Defender portal, Restricted entities'
    }
    $Most = Get-Octets $Found.ProhibitSendQuota
    $Used = Get-Octets (Get-MailboxStatistics -Identity $Mailbox -ErrorAction Stop).TotalItemSize
    if ($Most -and $Used -and ($Used -ge $Most)) {
        throw 'it is full, so that it can send nothing: empty it'
    }
    Write-Step 'ok' ('mailbox {0}: {1}' -f $Mailbox, $Kind)
}

function Undo-Everything($App) {
    if ($NeedsExchange -and (-not $EveryMailbox)) {
        $script:Step = 'roles in Exchange'
        foreach ($Role in $Roles) {
            $Assignment = (Get-ScopeName $App) + $Role.Replace('Application ', '-')
            $Found = @(Get-ManagementRoleAssignment -Role $Role -ErrorAction Stop | Where-Object { $_.Name -eq $Assignment })
            if ($Found.Count -gt 0) {
                Invoke-Step ('removed: role {0}' -f $Role) { Remove-ManagementRoleAssignment -Identity $Assignment -Confirm:$false -ErrorAction Stop }
            }
        }
        $script:Step = 'scope in Exchange'
        $ScopeName = Get-ScopeName $App
        $Found = @(Get-ManagementScope -ErrorAction Stop | Where-Object { $_.Name -eq $ScopeName })
        if ($Found.Count -gt 0) {
            Invoke-Step ('removed: scope {0}' -f $ScopeName) { Remove-ManagementScope -Identity $ScopeName -Confirm:$false -ErrorAction Stop }
        }
        $script:Step = 'service principal in Exchange'
        $Found = @(Get-ServicePrincipal -ErrorAction Stop | Where-Object { $_.AppId -eq $App.AppId })
        if ($Found.Count -gt 0) {
            Invoke-Step 'removed: service principal in Exchange' { Remove-ServicePrincipal -Identity $App.AppId -Confirm:$false -ErrorAction Stop }
        }
    }
    # Its service principal, and what that was granted, go with it.
    $script:Step = 'application'
    Invoke-Step ('removed: application {0}' -f $Name) { Remove-MgApplication -ApplicationId $App.Id -Confirm:$false -ErrorAction Stop }
}

# The same for a second run, and another for each application.
function Get-ScopeName($App) {
    'postern-{0}' -f $App.AppId
}

function Grant-InExchange($App, $Principal) {
    $script:Step = 'service principal in Exchange'
    $Found = @()
    if ($App) {
        $Found = @(Get-ServicePrincipal -ErrorAction Stop | Where-Object { $_.AppId -eq $App.AppId })
    }
    if ($Found.Count -gt 0) {
        Write-Step 'ok' 'service principal in Exchange'
    }
    else {
        Invoke-Step 'service principal in Exchange' {
            # The object ID is that of the enterprise application, not that of the application.
            $null = Invoke-Patiently { New-ServicePrincipal -AppId $App.AppId -ObjectId $Principal.Id -DisplayName $Name -ErrorAction Stop }
        }
    }

    $script:Step = 'scope in Exchange'
    $ScopeName = Get-ScopeName $App
    $Filter = ($Mailboxes | ForEach-Object { "PrimarySmtpAddress -eq '" + $_.Replace("'", "''") + "'" }) -join ' -or '
    $Found = @(Get-ManagementScope -ErrorAction Stop | Where-Object { $_.Name -eq $ScopeName })
    if ($Found.Count -eq 0) {
        Invoke-Step ('scope {0}: {1}' -f $ScopeName, $Filter) {
            $null = New-ManagementScope -Name $ScopeName -RecipientRestrictionFilter $Filter -ErrorAction Stop
        }
    }
    elseif (("$($Found[0].RecipientFilter)" -replace '[()\s]', '') -ne ($Filter -replace '[()\s]', '')) {
        Invoke-Step ('scope {0} changed: {1}' -f $ScopeName, $Filter) {
            Set-ManagementScope -Identity $ScopeName -RecipientRestrictionFilter $Filter -ErrorAction Stop
        }
    }
    else {
        Write-Step 'ok' ('scope {0}: {1}' -f $ScopeName, $Filter)
    }

    foreach ($Role in $Roles) {
        $script:Step = 'role {0}' -f $Role
        $Assignment = $ScopeName + $Role.Replace('Application ', '-')
        $Found = @(Get-ManagementRoleAssignment -Role $Role -ErrorAction Stop | Where-Object { $_.Name -eq $Assignment })
        if ($Found.Count -gt 0) {
            Write-Step 'ok' ('role {0}' -f $Role)
        }
        else {
            Invoke-Step ('role {0}' -f $Role) {
                $null = Invoke-Patiently { New-ManagementRoleAssignment -Name $Assignment -App $Principal.Id -Role $Role -CustomResourceScope $ScopeName -ErrorAction Stop }
            }
        }
    }
}

function Grant-EveryMailbox($Principal) {
    $Graph = @(Get-MgServicePrincipal -Filter "appId eq '$GraphAppId'" -ErrorAction Stop)[0]
    $Granted = @()
    if ($Principal) {
        $Granted = @(Get-MgServicePrincipalAppRoleAssignment -ServicePrincipalId $Principal.Id -All -ErrorAction Stop)
    }
    foreach ($Permission in $Permissions) {
        $script:Step = 'permission {0}, for every mailbox' -f $Permission.Name
        $Found = @($Granted | Where-Object { ("$($_.AppRoleId)" -eq $Permission.Id) -and ("$($_.ResourceId)" -eq $Graph.Id) })
        if ($Found.Count -gt 0) {
            Write-Step 'ok' $script:Step
        }
        else {
            Invoke-Step $script:Step {
                $null = Invoke-Patiently { New-MgServicePrincipalAppRoleAssignment -ServicePrincipalId $Principal.Id -PrincipalId $Principal.Id -ResourceId $Graph.Id -AppRoleId $Permission.Id -ErrorAction Stop }
            }
        }
    }
}

# Whether Exchange will let it, which it says past its own cache.
function Test-Authorization($Principal) {
    foreach ($Mailbox in $Mailboxes) {
        foreach ($Role in $Roles) {
            $script:Step = 'may it: {0} as {1}' -f $Role, $Mailbox
            Invoke-Patiently {
                $Rows = @(Test-ServicePrincipalAuthorization -Identity $Principal.Id -Resource $Mailbox -ErrorAction Stop)
                $In = @($Rows | Where-Object { ($_.RoleName -eq $Role) -and ("$($_.InScope)" -eq 'True') })
                if ($In.Count -eq 0) {
                    throw 'Exchange does not have this mailbox in the scope of the role; run this script again in some minutes'
                }
            }
            Write-Step 'ok' $script:Step
        }
    }
}

$Step = 'modules'
try {
    Import-Needed 'Microsoft.Graph.Applications'
    if ($NeedsExchange) {
        Import-Needed 'ExchangeOnlineManagement'
        $Step = 'login at Exchange Online'
        Connect-ExchangeOnline -ExchangeEnvironmentName $ExchangeEnvironment -ShowBanner:$false -ErrorAction Stop
    }
    $Step = 'login at Microsoft Graph'
    $Scopes = @('Application.ReadWrite.All')
    if ($EveryMailbox) {
        $Scopes += 'AppRoleAssignment.ReadWrite.All'
    }
    Connect-MgGraph -Scopes $Scopes -Environment $GraphEnvironment -ContextScope Process -NoWelcome -ErrorAction Stop
    $Context = Get-MgContext
    Write-Step 'ok' ('logged in as {0}, tenant {1}' -f $Context.Account, $Context.TenantId)

    $Step = 'application'
    $App = Find-Application
    if ($Undo) {
        if ($App) {
            Undo-Everything $App
        }
        else {
            Write-Step 'ok' ('there is no application {0}: nothing is left to remove' -f $Name)
        }
        exit 0
    }
    if ($App) {
        Write-Step 'ok' ('application {0}' -f $Name)
    }
    else {
        $App = Invoke-Step ('application {0}' -f $Name) {
            $Key = @{
                Type        = 'AsymmetricX509Cert'
                Usage       = 'Verify'
                Key         = [Convert]::FromBase64String($Certificate)
                DisplayName = $KeyName
            }
            New-MgApplication -DisplayName $Name -SignInAudience 'AzureADMyOrg' -KeyCredentials @($Key) -Tags @($Tag) -ErrorAction Stop
        }
    }

    $Step = 'service principal'
    $Principal = $null
    if ($App) {
        $Principal = Get-MgServicePrincipal -Filter "appId eq '$($App.AppId)'" -ErrorAction Stop | Select-Object -First 1
    }
    if ($Principal) {
        Write-Step 'ok' 'service principal'
    }
    else {
        $Principal = Invoke-Step 'service principal' {
            Invoke-Patiently { New-MgServicePrincipal -AppId $App.AppId -ErrorAction Stop }
        }
    }

    if ($EveryMailbox) {
        Grant-EveryMailbox $Principal
    }
    else {
        Grant-InExchange $App $Principal
    }

    foreach ($Mailbox in $Mailboxes) {
        $Step = 'mailbox {0}' -f $Mailbox
        Test-OneMailbox $Mailbox
    }

    if (-not $WhatIfPreference) {
        if (-not $EveryMailbox) {
            Test-Authorization $Principal
        }
        Write-Output ''
        Write-Output ('tenant_id = "{0}"' -f $Context.TenantId)
        Write-Output ('client_id = "{0}"' -f $App.AppId)
        Write-Output $MailboxLine
    }
}
catch {
    Write-Step 'FAILED' ('{0}: {1}' -f $Step, $_.Exception.Message)
    exit 1
}
